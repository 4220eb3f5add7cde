// Blocks, threads, barriers and collectives of the host shim; see include/cuda_shim.h.
#include "cuda_shim.h"

#include <csetjmp>
#include <memory>
#include <mutex>
#include <string>
#include <ucontext.h>
#include <vector>

dim3 threadIdx, blockIdx, blockDim, gridDim;
extern char __start_shim_shared[] __attribute__((weak)), __stop_shim_shared[] __attribute__((weak));

namespace {
constexpr std::size_t STACK = 64 * 1024;
enum class State { READY, AT_BARRIER, IN_WARP, IDLE };

struct Fiber {
    std::unique_ptr<char[]> stack{new char[STACK]};
    ucontext_t start;
    jmp_buf at;
    bool entered = false;
    State state = State::IDLE;
    unsigned thread = 0, result = 0;
};

struct Warp {
    shim::Kind kind;
    unsigned mask = 0, arrived = 0, value[32], partner[32];
    Fiber *fiber[32];
};

// One launch at a time: hardware has its own threads, we have one.
std::mutex turn;
std::vector<std::unique_ptr<Fiber>> pool;
std::vector<Fiber *> begun;
std::vector<Warp> warps;
Fiber *current;
jmp_buf scheduler;
ucontext_t origin;
unsigned threads, next_thread, finished, at_barrier, votes;
std::string fault;
bool backward = false;
void (*kernel)(const void *);
const void *arguments;

void set_thread(unsigned thread) {
    threadIdx.x = thread % blockDim.x;
    threadIdx.y = thread / blockDim.x % blockDim.y;
    threadIdx.z = thread / (blockDim.x * blockDim.y);
}

// A fiber runs one thread after the other until one has to wait; so a kernel without barriers needs one fiber.
void work() {
    for (;;) {
        while (next_thread < threads) {
            current->thread = backward ? threads - 1 - next_thread : next_thread;
            ++next_thread;
            set_thread(current->thread);
            kernel(arguments);
            ++finished;
        }
        current->state = State::IDLE;
        if (!_setjmp(current->at)) _longjmp(scheduler, 1);
    }
}

void wait(State state) {
    current->state = state;
    if (!_setjmp(current->at)) _longjmp(scheduler, 1);
}

[[noreturn]] void fail(const std::string &why) {
    if (fault.empty()) fault = why;
    current->entered = false;  // what is on its stack is given up
    current->state = State::IDLE;
    _longjmp(scheduler, 1);
}

void resume(Fiber *fiber) {
    current = fiber;
    if (_setjmp(scheduler)) return;
    if (fiber->entered) {
        set_thread(fiber->thread);
        _longjmp(fiber->at, 1);
    }
    fiber->entered = true;
    getcontext(&fiber->start);
    fiber->start.uc_stack.ss_sp = fiber->stack.get();
    fiber->start.uc_stack.ss_size = STACK;
    fiber->start.uc_link = nullptr;
    makecontext(&fiber->start, work, 0);
    swapcontext(&origin, &fiber->start);
}

void begin_fiber(std::size_t number) {
    if (number == pool.size()) pool.push_back(std::make_unique<Fiber>());
    begun.push_back(pool[number].get());
    resume(begun.back());
}

void run_block() {
    // Shared memory is never clean.
    if (__start_shim_shared) std::memset(__start_shim_shared, 0xa5, __stop_shim_shared - __start_shim_shared);
    next_thread = finished = at_barrier = votes = 0;
    warps.assign((threads + 31) / 32, Warp{});
    begun.clear();
    while (fault.empty() && next_thread < threads) begin_fiber(begun.size());
    while (fault.empty() && finished < threads) {
        bool any = false;
        for (std::size_t i = 0; i < begun.size() && fault.empty(); ++i)  // begun in the order of their threads
            if (begun[i]->state == State::READY) {
                any = true;
                resume(begun[i]);
            }
        if (any || !fault.empty()) continue;
        const std::string of = " of " + std::to_string(threads) + " threads";
        fault = at_barrier ? "__syncthreads was reached by " + std::to_string(at_barrier) + of
                           : "a warp waits in a collective that not all lanes of its mask reach; " +
                                 std::to_string(finished) + of + " have ended";
    }
    if (!fault.empty())
        for (Fiber *fiber : begun) fiber->entered = false;
}
}  // namespace

namespace shim {
int barrier(bool counts) {
    votes += counts;
    Fiber *mine = current;
    if (++at_barrier < threads) {
        wait(State::AT_BARRIER);
        return static_cast<int>(mine->result);
    }
    const unsigned sum = votes;
    at_barrier = votes = 0;
    for (Fiber *fiber : begun)
        if (fiber->state == State::AT_BARRIER) {
            fiber->result = sum;
            fiber->state = State::READY;
        }
    return static_cast<int>(sum);
}

unsigned collective(Kind kind, unsigned mask, unsigned value, unsigned partner) {
    Fiber *mine = current;
    const unsigned lane = mine->thread % 32;
    Warp &warp = warps[mine->thread / 32];
    if (!(mask >> lane & 1)) fail("a lane calls a collective whose mask leaves it out");
    if (warp.arrived && (warp.kind != kind || warp.mask != mask))
        fail("lanes of one warp meet in different collectives, or with different masks");
    warp.kind = kind;
    warp.mask = mask;
    warp.arrived |= 1u << lane;
    warp.value[lane] = value;
    warp.partner[lane] = lane ^ partner;
    warp.fiber[lane] = mine;
    mine->state = State::READY;
    if (warp.arrived != mask) {
        wait(State::IN_WARP);
        return mine->result;
    }
    warp.arrived = 0;
    unsigned ballot = 0;
    for (unsigned i = 0; i < 32; ++i)
        if (mask >> i & 1 && warp.value[i]) ballot |= 1u << i;
    for (unsigned i = 0; i < 32; ++i) {
        if (!(mask >> i & 1)) continue;
        unsigned result = kind == Kind::BALLOT ? ballot : 0;
        if (kind == Kind::SHUFFLE) {
            if (!(mask >> warp.partner[i] & 1)) fail("a lane reads from one outside the mask");
            result = warp.value[warp.partner[i]];
        }
        if (kind == Kind::MATCH)
            for (unsigned j = 0; j < 32; ++j)
                if (mask >> j & 1 && warp.value[j] == warp.value[i]) result |= 1u << j;
        warp.fiber[i]->result = result;
        warp.fiber[i]->state = State::READY;
    }
    return mine->result;
}

const char *run(const unsigned *dims, void (*call)(const void *), const void *all) {
    const std::lock_guard<std::mutex> mine(turn);
    static std::string said;
    gridDim = {dims[0], dims[1], dims[2]};
    blockDim = {dims[3], dims[4], dims[5]};
    threads = blockDim.x * blockDim.y * blockDim.z;
    const unsigned long long blocks = 1ull * gridDim.x * gridDim.y * gridDim.z;
    if (!blocks || !threads || threads > 1024 || gridDim.y > 65535 || gridDim.z > 65535)
        return "invalid launch: an empty grid, or more than a device takes";
    kernel = call;
    arguments = all;
    fault.clear();
    for (unsigned long long turn_of = 0; turn_of < blocks && fault.empty(); ++turn_of) {
        const unsigned long long block = backward ? blocks - 1 - turn_of : turn_of;
        blockIdx.x = block % gridDim.x;
        blockIdx.y = block / gridDim.x % gridDim.y;
        blockIdx.z = block / (1ull * gridDim.x * gridDim.y);
        run_block();
    }
    said = fault;
    return said.empty() ? nullptr : said.c_str();
}
}  // namespace shim

// Blocks and threads from the last to the first: whoever leans on the order that nobody promised, differs.
extern "C" void shim_backward(int wanted) { backward = wanted; }
