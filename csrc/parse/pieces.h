// A vocabulary's strings where they lie: the id of a string, and which of them a text contains. Nothing is copied, so
// that a prompt can be encoded without making a hundred thousand objects first.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace edgewise::parse {

// count strings one after the other: string i is blob[ends[i - 1], ends[i]).
struct StringTable {
  std::string_view blob;
  std::span<const uint32_t> ends;
  size_t count() const { return ends.size(); }
  std::string_view at(size_t i) const {
    const uint32_t begin = i ? ends[i - 1] : 0;
    return blob.substr(begin, ends[i] - begin);
  }
  bool sound() const;  // the ends are in order and inside the blob
  bool utf8() const;   // every string for itself
};

// All beginnings of a text in order, to ask whether a string occurs in it.
class Substrings {
 public:
  explicit Substrings(std::string_view text);
  bool has(std::string_view piece) const;

 private:
  std::string_view text_;
  std::vector<uint32_t> order_;    // sorted suffixes
  std::vector<uint64_t> bigrams_;  // a bit for every two bytes that follow each other: most strings end here
};

class Pieces {
 public:
  explicit Pieces(StringTable tokens);
  static constexpr int64_t kNone = -1;
  int64_t find(std::string_view text) const;                  // the last id of that string
  std::vector<int32_t> within(const Substrings& text) const;  // ids of the strings that the text contains, ascending
  // A line of `merges` is two pieces with a space between; the first one that is none, or whose parts or whole are no
  // pieces, or kNone.
  int64_t first_bad_pair(const StringTable& merges) const;
  static std::vector<int32_t> pairs_within(const StringTable& merges, const Substrings& text);

 private:
  struct Slot {
    uint32_t tag = 0;    // of the hash
    uint32_t place = 0;  // id + 1; 0: free
  };
  uint64_t hash(std::string_view text) const;
  StringTable tokens_;
  uint64_t seed_;
  std::vector<Slot> slots_;
};

}  // namespace edgewise::parse
