// Streams images through a verilated accelerator and writes down what leaves it; volume.py says what is in the files.
//
// Inputs change while the clock is low, everything is sampled just before it rises, and cycles count from the end of
// reset, as in bench.py: both see the same cycles. Beats are copied byte by byte, element 0 in bit 0 of byte 0.

#include <chrono>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "Vdut.h"
#include "verilated.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "ports are read byte by byte");

namespace {

constexpr int kWords = 624, kMiddle = 397;

// Python's random.Random from its state: Mersenne Twister (Matsumoto and Nishimura 1998), and randrange(100) on it.
struct Draw {
    uint32_t state[kWords];
    uint32_t index;

    uint32_t next_word() {
        if (index == kWords) {
            for (int i = 0; i < kWords; ++i) {
                const uint32_t mixed = (state[i] & 0x80000000U) | (state[(i + 1) % kWords] & 0x7fffffffU);
                state[i] = state[(i + kMiddle) % kWords] ^ (mixed >> 1) ^ (mixed & 1 ? 0x9908b0dfU : 0);
            }
            index = 0;
        }
        uint32_t word = state[index++];
        word ^= word >> 11;
        word ^= word << 7 & 0x9d2c5680U;
        word ^= word << 15 & 0xefc60000U;
        return word ^ word >> 18;
    }

    // High in about `percent` of the cycles, in the very ones of bench.py.
    bool below(uint64_t percent) {
        if (percent == 0) return false;
        uint32_t drawn;
        do drawn = next_word() >> 25;
        while (drawn >= 100);
        return drawn < percent;
    }
};

using Beat = std::vector<uint8_t>;

// Of up to 64 bits a port is an integer, beyond that an array of 32-bit words: little-endian bytes in either case.
template <typename Port>
void copy_in(Port& port, const Beat& beat) {
    if (sizeof(port) < beat.size()) std::abort();
    std::memcpy(&port, beat.data(), beat.size());
}

template <typename Port>
void copy_out(const Port& port, Beat& beat) {
    if (sizeof(port) < beat.size()) std::abort();
    std::memcpy(beat.data(), &port, beat.size());
}

std::FILE* open_or_exit(const char* name, const char* mode) {
    std::FILE* file = std::fopen(name, mode);
    if (file == nullptr) {
        std::perror(name);
        std::exit(1);
    }
    return file;
}

void write_or_exit(const void* data, size_t size, std::FILE* file) {
    if (std::fwrite(data, 1, size, file) != size) {
        std::perror("results");
        std::exit(1);
    }
}

// Prints how far it is, at most five times a second, and at the end.
class Report {
public:
    void show(uint64_t cycle, uint64_t sent, uint64_t received, uint64_t breaches,
              uint64_t frame_errors, bool at_once = false) {
        const auto now = std::chrono::steady_clock::now();
        if (!at_once && now - shown_ < std::chrono::milliseconds(200)) return;
        shown_ = now;
        for (const uint64_t number : {cycle, sent, received, breaches, frame_errors}) {
            std::printf("%" PRIu64 " ", number);
        }
        std::printf("\n");
        std::fflush(stdout);
    }

private:
    std::chrono::steady_clock::time_point shown_ = std::chrono::steady_clock::now();
};

}  // namespace

// Arguments: s_axis and m_axis bytes per beat, beats in, beats per image, beats out, cycles to wait for any beat, idle
// and stall percent, seed of what registers hold before reset. Files in: input.bin, the beats; draws.bin, the state of
// the random numbers for idles and for stalls. Files out: output.bin, of every beat its cycle, tlast, tuser and data;
// starts.bin, the cycle of every image's first beat in. Lines on stdout: cycles, beats in, beats out, breaches of the
// protocol and bad frames so far.
int main(int argc, char** argv) {
    constexpr int kArguments = 9;
    if (argc != kArguments + 1) return 2;
    uint64_t numbers[kArguments];
    for (int i = 0; i < kArguments; ++i) numbers[i] = std::strtoull(argv[i + 1], nullptr, 10);
    const auto [s_bytes, m_bytes, n_in, per_image, n_out, patience, idle_percent, stall_percent, seed] = numbers;

    std::FILE* const input = open_or_exit("input.bin", "rb");
    std::FILE* const output = open_or_exit("output.bin", "wb");
    std::FILE* const starts = open_or_exit("starts.bin", "wb");
    Draw draws[2];
    std::FILE* const states = open_or_exit("draws.bin", "rb");
    if (std::fread(draws, sizeof *draws, 2, states) != 2) return 3;
    std::fclose(states);
    Draw &idle = draws[0], &stall = draws[1];

    Beat offer(s_bytes), beat(m_bytes), waiting(m_bytes);
    uint64_t sent = 0, received = 0, cycle = 0, moved = 0, breaches = 0;
    bool offered = false, held = false;
    uint8_t held_marks[2] = {0, 0};
    Report report;

    VerilatedContext context;
    context.randReset(2);  // random, so that nothing relies on zeros
    context.randSeed(static_cast<int>(seed));
    Vdut dut(&context);
    dut.s_axis_tvalid = dut.m_axis_tready = dut.aresetn = 0;
    for (int i = 0; i < 6; ++i) {
        dut.aclk = i & 1;
        dut.eval();
    }
    dut.aresetn = 1;

    for (; received < n_out && cycle - moved < patience; ++cycle) {
        if (!offered && sent < n_in && !idle.below(idle_percent)) {
            if (std::fread(offer.data(), 1, s_bytes, input) != s_bytes) return 3;
            offered = true;
            copy_in(dut.s_axis_tdata, offer);
            dut.s_axis_tlast = (sent + 1) % per_image == 0;
        }
        dut.s_axis_tvalid = offered;
        dut.m_axis_tready = !stall.below(stall_percent);
        dut.aclk = 0;
        dut.eval();
        if (offered && dut.s_axis_tready) {
            if (sent % per_image == 0) write_or_exit(&cycle, sizeof cycle, starts);
            ++sent;
            moved = cycle;
            offered = false;
        }
        const uint8_t marks[2] = {dut.m_axis_tlast, dut.m_axis_tuser};
        if (dut.m_axis_tvalid) copy_out(dut.m_axis_tdata, beat);
        // A beat offered stays as it is until it is taken.
        const bool changed = beat != waiting || std::memcmp(marks, held_marks, sizeof marks) != 0;
        if (held && (!dut.m_axis_tvalid || changed)) ++breaches;
        held = dut.m_axis_tvalid && !dut.m_axis_tready;
        if (held) {
            waiting = beat;
            std::memcpy(held_marks, marks, sizeof marks);
        } else if (dut.m_axis_tvalid) {
            write_or_exit(&cycle, sizeof cycle, output);
            write_or_exit(marks, sizeof marks, output);
            write_or_exit(beat.data(), m_bytes, output);
            ++received;
            moved = cycle;
            if (marks[0]) report.show(cycle, sent, received, breaches, dut.frame_errors);
        }
        dut.aclk = 1;
        dut.eval();
    }
    report.show(cycle, sent, received, breaches, dut.frame_errors, true);
    dut.final();
    if (std::fclose(output) != 0 || std::fclose(starts) != 0) return 3;
    return 0;
}
