#include "parse/pieces.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <random>

namespace edgewise::parse {
namespace {

uint64_t mix(uint64_t a, uint64_t b) {
  const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

uint32_t bigram(std::string_view text) {
  return static_cast<uint8_t>(text[0]) | static_cast<uint32_t>(static_cast<uint8_t>(text[1])) << 8;
}

// Strict UTF-8: no surrogates, no overlong forms, nothing above U+10FFFF.
bool is_utf8(std::string_view s) {
  size_t i = 0;
  const auto byte = [&](size_t at) { return static_cast<uint8_t>(s[at]); };
  const auto follows = [&](size_t at) { return at < s.size() && (byte(at) & 0xC0) == 0x80; };
  while (i < s.size()) {
    const uint8_t b = byte(i);
    if (b < 0x80) {
      ++i;
    } else if (b >= 0xC2 && b <= 0xDF) {
      if (!follows(i + 1)) return false;
      i += 2;
    } else if (b >= 0xE0 && b <= 0xEF) {
      if (!follows(i + 1) || !follows(i + 2)) return false;
      if ((b == 0xE0 && byte(i + 1) < 0xA0) || (b == 0xED && byte(i + 1) > 0x9F)) return false;
      i += 3;
    } else if (b >= 0xF0 && b <= 0xF4) {
      if (!follows(i + 1) || !follows(i + 2) || !follows(i + 3)) return false;
      if ((b == 0xF0 && byte(i + 1) < 0x90) || (b == 0xF4 && byte(i + 1) > 0x8F)) return false;
      i += 4;
    } else {
      return false;
    }
  }
  return true;
}

// The two parts of a line of merges: cut at its first space, but not before its first byte.
bool parts_of(std::string_view line, std::string_view* left, std::string_view* right) {
  const size_t cut = line.find(' ', 1);
  if (cut == std::string_view::npos || cut + 1 >= line.size()) return false;
  *left = line.substr(0, cut);
  *right = line.substr(cut + 1);
  return true;
}

// Both parts in one run of bytes; `room` is reused.
std::string_view joined(std::string_view left, std::string_view right, std::string* room) {
  room->assign(left);
  room->append(right);
  return *room;
}

}  // namespace

bool StringTable::sound() const {
  uint32_t last = 0;
  for (const uint32_t end : ends) {
    if (end < last || end > blob.size()) return false;
    last = end;
  }
  return true;
}

bool StringTable::utf8() const {
  for (size_t i = 0; i < count(); ++i)
    if (!is_utf8(at(i))) return false;
  return true;
}

Substrings::Substrings(std::string_view text) : text_(text), order_(text.size()), bigrams_(1024) {
  for (uint32_t i = 0; i < text.size(); ++i) order_[i] = i;
  std::sort(order_.begin(), order_.end(), [&](uint32_t a, uint32_t b) { return text.substr(a) < text.substr(b); });
  for (size_t i = 0; i + 1 < text.size(); ++i) {
    const uint32_t pair = bigram(text.substr(i));
    bigrams_[pair / 64] |= uint64_t(1) << (pair % 64);
  }
}

bool Substrings::has(std::string_view piece) const {
  if (piece.size() > text_.size()) return false;
  if (piece.size() > 1) {
    const uint32_t pair = bigram(piece);
    if (!(bigrams_[pair / 64] >> (pair % 64) & 1)) return false;
  }
  const auto at = std::lower_bound(order_.begin(), order_.end(), piece, [&](uint32_t suffix, std::string_view wanted) {
    return text_.substr(suffix, wanted.size()) < wanted;
  });
  return at != order_.end() && text_.substr(*at, piece.size()) == piece;
}

// The seed differs in every process, so that no file can be made whose strings all collide.
Pieces::Pieces(StringTable tokens) : tokens_(tokens) {
  std::random_device random;
  seed_ = (uint64_t(random()) << 32 | random()) | 1;
  slots_.resize(std::bit_ceil(2 * tokens.count() + 2));
  const size_t mask = slots_.size() - 1;
  for (size_t i = 0; i < tokens.count(); ++i) {
    const std::string_view text = tokens.at(i);
    if (text.empty()) continue;
    const uint64_t h = hash(text);
    size_t at = h & mask;
    while (slots_[at].place && !(slots_[at].tag == uint32_t(h >> 32) && tokens.at(slots_[at].place - 1) == text))
      at = (at + 1) & mask;
    slots_[at] = {uint32_t(h >> 32), uint32_t(i + 1)};
  }
}

uint64_t Pieces::hash(std::string_view text) const {
  uint64_t h = seed_ ^ text.size();
  const char* p = text.data();
  size_t left = text.size();
  for (; left > 8; p += 8, left -= 8) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    h = mix(h ^ word, 0x9E3779B97F4A7C15u ^ seed_);
  }
  uint64_t word = 0;
  std::memcpy(&word, p, left);
  return mix(h ^ word, 0xD6E8FEB86659FD93u ^ seed_);
}

int64_t Pieces::find(std::string_view text) const {
  if (text.empty()) return kNone;
  const uint64_t h = hash(text);
  const size_t mask = slots_.size() - 1;
  for (size_t at = h & mask; slots_[at].place; at = (at + 1) & mask)
    if (slots_[at].tag == uint32_t(h >> 32) && tokens_.at(slots_[at].place - 1) == text) return slots_[at].place - 1;
  return kNone;
}

std::vector<int32_t> Pieces::within(const Substrings& text) const {
  std::vector<int32_t> found;
  for (size_t i = 0; i < tokens_.count(); ++i)
    if (!tokens_.at(i).empty() && text.has(tokens_.at(i))) found.push_back(int32_t(i));
  return found;
}

int64_t Pieces::first_bad_pair(const StringTable& merges) const {
  std::string_view left, right;
  std::string room;
  for (size_t i = 0; i < merges.count(); ++i)
    if (!parts_of(merges.at(i), &left, &right) || find(left) < 0 || find(right) < 0 || find(joined(left, right, &room)) < 0)
      return int64_t(i);
  return kNone;
}

std::vector<int32_t> Pieces::pairs_within(const StringTable& merges, const Substrings& text) {
  std::vector<int32_t> found;
  std::string_view left, right;
  std::string room;
  for (size_t i = 0; i < merges.count(); ++i)
    if (parts_of(merges.at(i), &left, &right) && text.has(left) && text.has(joined(left, right, &room)))
      found.push_back(int32_t(i));
  return found;
}

}  // namespace edgewise::parse
