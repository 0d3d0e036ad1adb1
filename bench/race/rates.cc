// Peak rates of this CPU in registers, and the way between two cores: `rates THREADS` prints one JSON object in 0.1 s.
// int8: dot products of bytes into int32; bf16: of bfloat16 into float. Where the CPU has none, the next best way.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace {

constexpr int kChains = 12;  // independent accumulators: enough to hide the latency of a dot product
constexpr long kRounds = 3000000;

double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

#if defined(__AVX512VNNI__)
using Bytes = __m512i;
using Sums = __m512i;
constexpr int kByteMacs = 64;
inline Sums dot(Sums sum, Bytes x) { return _mm512_dpbusd_epi32(sum, x, x); }
#elif defined(__AVXVNNI__)
using Bytes = __m256i;
using Sums = __m256i;
constexpr int kByteMacs = 32;
inline Sums dot(Sums sum, Bytes x) { return _mm256_dpbusd_avx_epi32(sum, x, x); }
#elif defined(__AVX2__)
using Bytes = __m256i;
using Sums = __m256i;
constexpr int kByteMacs = 32;
inline Sums dot(Sums sum, Bytes x) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(x, x), _mm256_set1_epi16(1)));
}
#elif defined(__ARM_FEATURE_DOTPROD)
using Bytes = int8x16_t;
using Sums = int32x4_t;
constexpr int kByteMacs = 16;
inline Sums dot(Sums sum, Bytes x) { return vdotq_s32(sum, x, x); }
#else
using Bytes = int;
using Sums = int;
constexpr int kByteMacs = 0;
inline Sums dot(Sums sum, Bytes x) { return sum + x * x; }
#endif

#if defined(__AVX512BF16__)
using Halves = __m512bh;
using Floats = __m512;
constexpr int kHalfMacs = 32;
inline Floats dot(Floats sum, Halves x) { return _mm512_dpbf16_ps(sum, x, x); }
#elif defined(__FMA__)
using Halves = __m256;
using Floats = __m256;
constexpr int kHalfMacs = 8;
inline Floats dot(Floats sum, Halves x) { return _mm256_fmadd_ps(x, x, sum); }
#elif defined(__aarch64__)
using Halves = float32x4_t;
using Floats = float32x4_t;
constexpr int kHalfMacs = 4;
inline Floats dot(Floats sum, Halves x) { return vfmaq_f32(sum, x, x); }
#else
using Halves = float;
using Floats = float;
constexpr int kHalfMacs = 0;
inline Floats dot(Floats sum, Halves x) { return sum + x * x; }
#endif

// the compiler must take the value for unknown, or it would compute one chain, or one round, and be done
template <class T>
inline void opaque(T& value) {
#if defined(__x86_64__)
    asm volatile("" : "+v"(value));
#elif defined(__aarch64__)
    asm volatile("" : "+w"(value));
#else
    asm volatile("" : "+r"(value));
#endif
}

template <class Sum, class X>
void work() {
    Sum sums[kChains] = {};
    X x{};
#pragma GCC unroll 12
    for (int i = 0; i < kChains; i++) opaque(sums[i]);
    for (long round = 0; round < kRounds; round++) {
        opaque(x);
#pragma GCC unroll 12
        for (int i = 0; i < kChains; i++) sums[i] = dot(sums[i], x);
    }
#pragma GCC unroll 12
    for (int i = 0; i < kChains; i++) opaque(sums[i]);
}

// wall seconds of f(0) ... f(threads - 1) side by side, from the first one's start to the last one's end
template <class F>
double together(int threads, F f) {
    std::atomic<int> there{0};
    std::vector<double> starts(size_t(threads), 0.0), ends(size_t(threads), 0.0);
    std::vector<std::thread> crew;
    for (int i = 0; i < threads; i++) crew.emplace_back([&, i] {
        for (there++; there < threads;) std::this_thread::yield();
        starts[i] = now();
        f(i);
        ends[i] = now();
    });
    for (std::thread& one : crew) one.join();
    return *std::max_element(ends.begin(), ends.end()) - *std::min_element(starts.begin(), starts.end());
}

// two threads hand a number back and forth for kPlay seconds: on a busy machine one trip may take a time slice
double round_trip_ns() {
    constexpr double kPlay = 0.005;
    constexpr int kOver = -1;
    alignas(64) static std::atomic<int> ball{0};
    static std::atomic<int> trips{0};
    const double seconds = together(2, [&](int side) {
        const double end = now() + kPlay;
        for (int i = 0;; i++) {
            for (int seen; (seen = ball.load(std::memory_order_acquire)) != 2 * i + side;)
                if (seen == kOver) return;
            if (side == 0 && i % 16 == 0) {
                trips = i;
                if (now() > end) return ball.store(kOver);
            }
            ball.store(2 * i + side + 1, std::memory_order_release);
        }
    });
    return trips ? seconds / trips * 1e9 : seconds * 1e9;
}

}  // namespace

int main(int argc, char** argv) {
    const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
    const double ops = 2.0 * kChains * kRounds * threads / 1e9;
    const char* comma = "";
    std::printf("{");
    if (kByteMacs) {
        std::printf("\"int8_gops\": %.1f", ops * kByteMacs / together(threads, [](int) { work<Sums, Bytes>(); }));
        comma = ", ";
    }
    if (kHalfMacs) {
        const double seconds = together(threads, [](int) { work<Floats, Halves>(); });
        std::printf("%s\"bf16_gflops\": %.1f", comma, ops * kHalfMacs / seconds);
        comma = ", ";
    }
    if (std::thread::hardware_concurrency() > 1) std::printf("%s\"round_trip_ns\": %.1f", comma, round_trip_ns());
    std::printf("}\n");
}
