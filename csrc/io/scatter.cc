#include "io/scatter.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <system_error>
#include <thread>

#include "base/xxh64.h"
#include "io/pread.h"

namespace edgewise::io {
namespace {

struct Run {
  int64_t first, count;
};

std::vector<Run> runs_of(const Scatter& job) {
  std::vector<Run> runs;
  const bool dense = job.bytes == job.step && job.bytes == job.stride;
  const int64_t together = dense ? std::max<int64_t>(1, job.most / job.bytes) : 1;
  for (int64_t i = 0; i < job.count; ++i) {
    if (!runs.empty() && runs.back().count < together && job.pieces[i] == job.pieces[i - 1] + 1 &&
        job.places[i] == job.places[i - 1] + 1)
      ++runs.back().count;
    else
      runs.push_back({i, 1});
  }
  return runs;
}

}  // namespace

ScatterResult scatter(const Scatter& job, int threads) {
  const std::vector<Run> runs = runs_of(job);
  ScatterResult result;
  result.reads = int64_t(runs.size());
  std::atomic<size_t> next{0};
  std::mutex failing;
  const auto fail = [&](int64_t piece, int64_t got, int error, bool differs) {
    const std::lock_guard lock(failing);
    if (result.failed < 0) result.failed = piece, result.got = got, result.error = error, result.differs = differs;
    next.store(runs.size());
  };
  const auto work = [&] {
    for (size_t at; (at = next.fetch_add(1)) < runs.size();) {
      const Run run = runs[at];
      uint8_t* into = job.into + int64_t(job.places[run.first]) * job.stride;
      const size_t bytes = size_t(run.count * job.bytes);
      const ReadResult read = pread_full(job.fd, into, bytes, job.offset + uint64_t(job.pieces[run.first]) * uint64_t(job.step));
      if (read.got < bytes) return fail(run.first + int64_t(read.got) / job.bytes, int64_t(read.got), read.error, false);
      for (int64_t i = 0; job.sums && i < run.count; ++i)
        if (xxh64(into + i * job.bytes, size_t(job.bytes)) != job.sums[job.pieces[run.first + i]])
          return fail(run.first + i, job.bytes, 0, true);
    }
  };
  std::vector<std::thread> helpers;
  const int more = int(std::min<int64_t>(threads, result.reads)) - 1;
  for (int i = 0; i < more; ++i) {
    try {
      helpers.emplace_back(work);
    } catch (const std::system_error&) {  // no more threads: those that are there do it
      break;
    }
  }
  work();
  for (auto& helper : helpers) helper.join();
  return result;
}

}  // namespace edgewise::io
