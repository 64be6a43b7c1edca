// Just enough CUDA for a C++ compiler to run the kernels of csrc/ on the host, one block after another.
//
// Each CUDA thread is a fiber (ucontext), all on one OS thread. A barrier really waits: a fiber yields
// until all of its block (or warp) have arrived. The order in which fibers are resumed is shuffled from
// a seed, so results that depend on the order of atomics, or on a barrier that is missing, change
// with the seed. Shared memory holds garbage when a block starts and is fenced by a canary.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <vector>

#define __host__
#define __device__
#define __global__
#define __shared__
#define __launch_bounds__(threads)

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};
static Dim3 gridDim, blockDim, blockIdx, threadIdx;

// The dynamic shared memory of the one block that runs; the kernel declares it `extern`.
constexpr size_t kSharedWords = 1 << 15;
constexpr unsigned char kGarbage = 0xCD;
unsigned long long hough_shared[kSharedWords];

// Compiled with -ffp-contract=off, these round each operation, as the intrinsics do.
[[maybe_unused]] static double __dadd_rn(double a, double b) { return a + b; }
[[maybe_unused]] static double __dmul_rn(double a, double b) { return a * b; }

[[maybe_unused]] static long long __double_as_longlong(double value) {
  long long bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
[[maybe_unused]] static double __longlong_as_double(long long bits) {
  double value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

template <class T>
static T atomicAdd(T* address, T value) {
  const T old = *address;
  *address = old + value;
  return old;
}

template <class T>
static T atomicMax(T* address, T value) {
  const T old = *address;
  *address = std::max(old, value);
  return old;
}

namespace host {

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  unsigned thread = 0;
  bool done = false;
};

struct Barrier {
  unsigned size = 0, arrived = 0, generation = 0;
};

static ucontext_t scheduler;
static std::vector<Fiber> fibers;
static Fiber* current = nullptr;
static Barrier block_barrier;
static std::vector<Barrier> warp_barriers;
static std::vector<unsigned long long> warp_slots;
static const std::function<void()>* body = nullptr;

static void yield() { swapcontext(&current->context, &scheduler); }

static void wait(Barrier& barrier) {
  const unsigned generation = barrier.generation;
  if (++barrier.arrived == barrier.size) {
    barrier.arrived = 0;
    ++barrier.generation;
    return;
  }
  while (barrier.generation == generation) yield();
}

static void enter() {
  (*body)();
  current->done = true;
  yield();
}

static void start_fibers(unsigned threads) {
  constexpr size_t kStack = 64 * 1024;
  fibers.resize(threads);
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& fiber = fibers[i];
    if (!fiber.stack) fiber.stack = std::make_unique<char[]>(kStack);
    fiber.thread = i;
    fiber.done = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, enter, 0);
  }
  block_barrier = Barrier{threads};
  warp_barriers.assign(threads / 32, Barrier{32});
  warp_slots.assign(threads, 0);
}

static void run_block(unsigned threads, std::mt19937& random) {
  start_fibers(threads);
  std::vector<Fiber*> order;
  for (Fiber& fiber : fibers) order.push_back(&fiber);
  while (!order.empty()) {
    std::shuffle(order.begin(), order.end(), random);
    for (Fiber* fiber : order) {
      current = fiber;
      threadIdx.x = fiber->thread;
      swapcontext(&scheduler, &fiber->context);
    }
    order.erase(std::remove_if(order.begin(), order.end(), [](Fiber* f) { return f->done; }),
                order.end());
  }
}

// Runs `kernel` over the grid, from slab `first_slab` on. Throws where real hardware would write out of its shared memory.
static void launch(Dim3 grid, unsigned threads, size_t shared_bytes, unsigned seed,
                   const std::function<void()>& kernel, unsigned first_slab = 0) {
  if (threads == 0 || threads % 32 != 0) throw std::runtime_error("block is not whole warps");
  if (shared_bytes > sizeof(hough_shared)) throw std::runtime_error("too much shared memory");
  std::mt19937 random(seed);
  gridDim = grid;
  blockDim = Dim3{threads, 1, 1};
  body = &kernel;
  auto* shared = reinterpret_cast<unsigned char*>(hough_shared);
  for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z)
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
      for (blockIdx.x = first_slab; blockIdx.x < grid.x; ++blockIdx.x) {
        std::memset(hough_shared, kGarbage, sizeof(hough_shared));
        run_block(threads, random);
        for (size_t i = shared_bytes; i < sizeof(hough_shared); ++i)
          if (shared[i] != kGarbage) throw std::runtime_error("write beyond the shared memory");
      }
}

}  // namespace host

static void __syncthreads() { host::wait(host::block_barrier); }

template <class T>
static T __shfl_down_sync(unsigned, T value, unsigned offset) {
  const unsigned thread = host::current->thread;
  host::Barrier& warp = host::warp_barriers[thread / 32];
  std::memcpy(&host::warp_slots[thread], &value, sizeof value);
  host::wait(warp);
  const bool inside = thread % 32 + offset < 32;
  T received;
  std::memcpy(&received, &host::warp_slots[inside ? thread + offset : thread], sizeof received);
  host::wait(warp);
  return received;
}
