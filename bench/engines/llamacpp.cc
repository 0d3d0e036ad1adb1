// llama.cpp as a child process of the benchmark (see protocol.py), in its own language, so that neither the start of an
// interpreter nor its calls are counted against it. Counts as llama-bench does: random tokens, an empty cache,
// llama_decode and llama_synchronize, no sampling, n_batch = n_ubatch = 512, everything else at its defaults.
#include <signal.h>
#include <sys/prctl.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <ggml.h>
#include <llama.h>

namespace {

constexpr int kPast = 128;    // cached tokens before a verify step, as in protocol.py
constexpr int kChunk = 512;

double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Row {
    llama_token token;
    int position, sequence;
    bool wanted;
};

class Session {
  public:
    Session(const char* path, int threads, int context, int sequences)
        : threads_(threads), cells_((context + 255) / 256 * 256), sequences_(sequences) {
        llama_backend_init();
        llama_model_params model_params = llama_model_default_params();
        model_params.n_gpu_layers = 0;
        model_ = llama_model_load_from_file(path, model_params);
        if (!model_) throw std::runtime_error("it cannot load this file");
        context_ = single_ = make(1);
        vocab_ = llama_vocab_n_tokens(llama_model_get_vocab(model_));
        batch_ = llama_batch_init(kChunk, 0, 1);
    }

    double prefill(int tokens, int, int seed) {
        use(1);
        const std::vector<llama_token> ids = random_ids(seed, tokens);
        const double start = now();
        append(ids, 0, tokens);
        return now() - start;
    }

    double decode(int tokens, int sequences, int seed) {
        use(sequences);
        std::vector<std::vector<llama_token>> ids;
        for (int s = 0; s < sequences; s++) ids.push_back(random_ids(seed * 64 + s, tokens));
        std::vector<Row> rows(size_t(sequences), Row{});
        const double start = now();
        for (int past = 0; past < tokens; past++) {
            for (int s = 0; s < sequences; s++) rows[s] = {ids[s][past], past, s, true};
            step(rows);
        }
        return now() - start;
    }

    double verify(int count, int repeats, int seed) {
        use(1);
        const std::vector<llama_token> ids = random_ids(seed, kPast + count);
        append(ids, 0, kPast);
        std::vector<Row> rows;
        for (int i = kPast; i < kPast + count; i++) rows.push_back({ids[i], i, 0, true});
        double seconds = 0;
        for (int i = 0; i < repeats; i++) {
            const double start = now();
            step(rows);
            seconds += now() - start;
            llama_memory_seq_rm(llama_get_memory(context_), 0, kPast, -1);
        }
        return seconds;
    }

    double first(int tokens, int, int seed) {
        use(1);
        const double start = now();
        append(random_ids(seed, tokens), 0, tokens);
        llama_sampler* greedy = llama_sampler_init_greedy();
        llama_sampler_sample(greedy, context_, -1);
        llama_sampler_free(greedy);
        return now() - start;
    }

  private:
    // a context of its own for one sequence: one with room for eight is 2 % slower even when seven are idle
    void use(int sequences) {
        if (sequences > sequences_) throw std::runtime_error("there is no room for that many sequences");
        if (sequences > 1 && !many_) many_ = make(sequences_);
        context_ = sequences > 1 ? many_ : single_;
        llama_memory_clear(llama_get_memory(context_), true);
    }

    // each sequence has cells of its own, as in llama-batched-bench
    llama_context* make(int sequences) const {
        llama_context_params params = llama_context_default_params();
        params.n_ctx = uint32_t(cells_ * sequences);
        params.n_batch = params.n_ubatch = kChunk;
        params.n_threads = params.n_threads_batch = threads_;
        params.n_seq_max = uint32_t(sequences);
        params.kv_unified = false;
        llama_context* context = llama_init_from_model(model_, params);
        if (!context) throw std::runtime_error("it cannot make a context");
        return context;
    }

    void append(const std::vector<llama_token>& ids, int from, int to) {
        for (int at = from; at < to; at += kChunk) {
            std::vector<Row> rows;
            for (int i = at; i < to && i < at + kChunk; i++) rows.push_back({ids[i], i, 0, i == to - 1});
            step(rows);
        }
    }

    void step(const std::vector<Row>& rows) {
        batch_.n_tokens = int(rows.size());
        for (size_t i = 0; i < rows.size(); i++) {
            batch_.token[i] = rows[i].token;
            batch_.pos[i] = rows[i].position;
            batch_.n_seq_id[i] = 1;
            batch_.seq_id[i][0] = rows[i].sequence;
            batch_.logits[i] = rows[i].wanted;
        }
        const int code = llama_decode(context_, batch_);
        if (code) throw std::runtime_error("llama_decode failed with " + std::to_string(code));
        llama_synchronize(context_);
    }

    std::vector<llama_token> random_ids(int seed, int count) const {  // protocol.random_ids
        uint64_t state = uint64_t(seed) * 7919 + 1;
        const uint64_t edge = vocab_ / 8 < 300 ? vocab_ / 8 : 300;
        std::vector<llama_token> ids;
        for (int i = 0; i < count; i++) {
            state = state * 6364136223846793005ull + 1442695040888963407ull;
            ids.push_back(llama_token(edge + (state >> 33) % (vocab_ - 2 * edge)));
        }
        return ids;
    }

    llama_model* model_ = nullptr;
    llama_context* single_ = nullptr;
    llama_context* many_ = nullptr;
    llama_context* context_ = nullptr;  // whichever is in use
    llama_batch batch_{};
    int threads_, cells_, sequences_;  // cells: tokens that a sequence may have, rounded up to 256 as llama.cpp does
    int vocab_ = 0;
};

long peak_rss_bytes() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);)
        if (line.rfind("VmHWM:", 0) == 0) return std::atol(line.c_str() + 6) * 1024;
    return 0;
}

std::string quoted(const std::string& text) {
    std::string out = "\"";
    for (const char c : text) out += c == '"' || c == '\\' ? '\'' : c < ' ' ? ' ' : c;
    return out + "\"";
}

int number(int argc, char** argv, const char* name) {
    for (int i = 2; i + 1 < argc; i += 2)
        if (!std::strcmp(argv[i], name)) return std::atoi(argv[i + 1]);
    throw std::runtime_error(std::string(name) + " is missing");
}

}  // namespace

int main(int argc, char** argv) try {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    llama_log_set([](ggml_log_level level, const char* text, void*) {
        if (level == GGML_LOG_LEVEL_ERROR || level == GGML_LOG_LEVEL_WARN) std::fputs(text, stderr);
    }, nullptr);
    const auto given = [&](const char* name) { return number(argc, argv, name); };
    Session session(argv[1], given("--threads"), given("--context"), given("--batch"));
    const std::string version = std::string(ggml_version()) + " " + ggml_commit();
    std::printf("{\"ready\": true, \"versions\": {\"ggml\": %s}, \"system\": %s}\n", quoted(version).c_str(),
                quoted(llama_print_system_info()).c_str());
    std::fflush(stdout);
    for (std::string line; std::getline(std::cin, line);) {
        std::istringstream order(line);
        std::string op;
        int tokens = 0, batch = 0, seed = 0;
        order >> op >> tokens >> batch >> seed;
        try {
            double seconds = 0;
            if (op == "prefill") seconds = session.prefill(tokens, batch, seed);
            else if (op == "decode") seconds = session.decode(tokens, batch, seed);
            else if (op == "verify") seconds = session.verify(tokens, batch, seed);
            else if (op == "first") seconds = session.first(tokens, batch, seed);
            else throw std::runtime_error("unknown operation " + op);
            std::printf("{\"seconds\": %.9f, \"peak_rss_bytes\": %ld}\n", seconds, peak_rss_bytes());
        } catch (const std::exception& error) {
            std::printf("{\"failed\": %s}\n", quoted(error.what()).c_str());
        }
        std::fflush(stdout);
    }
    return 0;
} catch (const std::exception& error) {
    std::fprintf(stderr, "llama.cpp: %s\n", error.what());
    return 1;
}
