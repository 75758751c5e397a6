#include "emulation.h"

#include <cstdarg>
#include <cstdio>
#include <string>
#include <vector>

#include "cuda_runtime.h"
#include "fiber.h"

uint3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {
namespace {

constexpr int kMostThreads = 1024;
constexpr size_t kStack = 256 << 10;
constexpr size_t kSharedDefault = 48 << 10, kCanary = 64;
enum Flag { kRead = 1, kWrite = 2, kOnce = 4 };

struct Region {
  const char* begin;
  size_t size;
  int flags;
  int64_t bytes_read = 0, bytes_written = 0;
  std::vector<bool> written;
};

struct Warp {
  int arrived = 0;
  const char* kind = nullptr;
  Site site;
  void* slots[32];
};

struct Thread {
  Context context;
  enum { kReady, kInWarp, kInBarrier, kDone } state;
};

struct Device {
  std::vector<Region> regions;
  size_t last_region = 0;
  std::string error;
  uint64_t random = 1;
  size_t shared_allowed = kSharedDefault;
  size_t shared_most = 227 << 10;  // as a device of compute capability 9.0 has it

  std::vector<char> stacks = std::vector<char>(kMostThreads * kStack);
  Thread threads[kMostThreads];
  Warp warps[kMostThreads / 32];
  std::vector<int> ready;
  std::vector<char> shared;
  Context host;
  const std::function<void()>* kernel = nullptr;
  int count = 0, current = 0, in_barrier = 0;
  Site barrier_site;
  bool running = false;
} device;

uint32_t draw(uint32_t below) {
  device.random ^= device.random << 13;
  device.random ^= device.random >> 7;
  device.random ^= device.random << 17;
  return static_cast<uint32_t>((device.random >> 20) % below);
}

const char* short_name(const Site& site) {
  const char* slash = std::strrchr(site.file_name(), '/');
  return slash ? slash + 1 : site.file_name();
}

void leave() { device.threads[device.current].context.switch_to(device.host); }

void enter() {
  (*device.kernel)();
  device.threads[device.current].state = Thread::kDone;
  leave();
}

void wake(int thread) {
  device.threads[thread].state = Thread::kReady;
  device.ready.push_back(thread);
}

void report_stuck() {
  for (int i = 0; i < device.count; ++i) {
    const Thread& t = device.threads[i];
    const Warp& w = device.warps[i / 32];
    if (t.state == Thread::kDone) continue;
    const Site& site = t.state == Thread::kInWarp ? w.site : device.barrier_site;
    char text[256];
    std::snprintf(text, sizeof text,
                  "deadlock: thread %d of block %u waits in a %s at %s:%u that others never reach",
                  i, blockIdx.x, t.state == Thread::kInWarp ? w.kind : "barrier", short_name(site),
                  static_cast<unsigned>(site.line()));
    device.error = text;
    return;
  }
}

void run_block(int64_t block, size_t shared) {
  blockIdx = {static_cast<unsigned>(block), 0, 0};
  // Shared memory starts as NaN, with a margin that must stay so.
  device.shared.assign(shared + 2 * kCanary + 16, static_cast<char>(0xff));
  device.ready.clear();
  device.in_barrier = 0;
  for (auto& warp : device.warps) warp.arrived = 0;
  for (int i = 0; i < device.count; ++i) {
    device.threads[i].context.prepare(enter, device.stacks.data() + i * kStack, kStack);
    wake(i);
  }
  while (!device.ready.empty() && device.error.empty()) {
    const uint32_t pick = draw(static_cast<uint32_t>(device.ready.size()));
    device.current = device.ready[pick];
    device.ready[pick] = device.ready.back();
    device.ready.pop_back();
    threadIdx = {static_cast<unsigned>(device.current), 0, 0};
    device.host.switch_to(device.threads[device.current].context);
  }
  if (!device.error.empty()) return;
  for (int i = 0; i < device.count; ++i)
    if (device.threads[i].state != Thread::kDone) return report_stuck();
  const char* base = static_cast<const char*>(dynamic_shared());
  for (size_t i = 0; i < kCanary; ++i)
    if (base[shared + i] != static_cast<char>(0xff)) {
      device.error = "block " + std::to_string(block) + " wrote beyond its shared memory";
      return;
    }
}

}  // namespace

void fail(const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  device.error = text;
  leave();
  __builtin_unreachable();
}

void* dynamic_shared() {
  auto at = reinterpret_cast<uintptr_t>(device.shared.data()) + kCanary;
  return reinterpret_cast<void*>((at + 15) & ~uintptr_t{15});
}

void check_access(const void* p, size_t bytes, bool writes) {
  const auto* at = static_cast<const char*>(p);
  const char* verb = writes ? "writes" : "reads";
  if (reinterpret_cast<uintptr_t>(p) % bytes)
    fail("thread %u of block %u %s %zu bytes at a misaligned address", threadIdx.x, blockIdx.x,
         verb, bytes);
  const size_t count = device.regions.size();
  for (size_t i = 0; i < count; ++i) {
    const size_t which = (device.last_region + i) % count;
    Region& r = device.regions[which];
    if (at < r.begin || at + bytes > r.begin + r.size) continue;
    device.last_region = which;
    const size_t offset = static_cast<size_t>(at - r.begin);
    if (!(r.flags & (writes ? kWrite : kRead)) && !(!writes && r.written[offset]))
      fail("thread %u of block %u %s region %zu at byte %zu, which holds no %s", threadIdx.x,
           blockIdx.x, verb, which, offset, writes ? "output" : "value yet");
    (writes ? r.bytes_written : r.bytes_read) += static_cast<int64_t>(bytes);
    for (size_t b = 0; writes && b < bytes; ++b) {
      if ((r.flags & kOnce) && r.written[offset + b])
        fail("thread %u of block %u writes byte %zu of region %zu a second time", threadIdx.x,
             blockIdx.x, offset + b, which);
      r.written[offset + b] = true;
    }
    return;
  }
  fail("thread %u of block %u %s %zu bytes outside every region", threadIdx.x, blockIdx.x, verb,
       bytes);
}

void launch(const std::function<void()>& kernel, int64_t blocks, int threads, size_t shared) {
  if (!device.error.empty()) return;
  if (blocks < 1 || blocks > 2147483647 || threads < 1 || threads > kMostThreads || threads % 32) {
    device.error = "launch of " + std::to_string(blocks) + " blocks of " + std::to_string(threads);
    return;
  }
  if (shared > device.shared_allowed) {
    device.error = "launch with " + std::to_string(shared) + " bytes of shared memory";
    return;
  }
  device.shared_allowed = kSharedDefault;
  device.kernel = &kernel;
  device.count = threads;
  blockDim = {static_cast<unsigned>(threads), 1, 1};
  gridDim = {static_cast<unsigned>(blocks), 1, 1};
  const bool backwards = draw(2);
  for (int64_t i = 0; i < blocks && device.error.empty(); ++i)
    run_block(backwards ? blocks - 1 - i : i, shared);
}

void collective(const char* kind, const Site& site, unsigned mask, void* slot, Meet meet) {
  if (mask != 0xffffffffu) fail("a %s with lanes 0x%x: only whole warps are emulated", kind, mask);
  const int thread = device.current, lane = thread % 32;
  Warp& warp = device.warps[thread / 32];
  if (warp.arrived == 0) {
    warp.kind = kind;
    warp.site = site;
  } else if (std::strcmp(kind, warp.kind) || site.line() != warp.site.line() ||
             site.column() != warp.site.column()) {
    fail("divergence: lane %d of warp %d is in a %s at %s:%u, others in a %s at %s:%u", lane,
         thread / 32, kind, short_name(site), static_cast<unsigned>(site.line()), warp.kind,
         short_name(warp.site), static_cast<unsigned>(warp.site.line()));
  }
  warp.slots[lane] = slot;
  if (++warp.arrived < 32) {
    device.threads[thread].state = Thread::kInWarp;
    leave();
    return;
  }
  meet(warp.slots);
  warp.arrived = 0;
  for (int i = 0; i < 32; ++i) wake(thread - lane + i);
  leave();
}

void barrier(const Site& site) {
  device.barrier_site = site;
  device.threads[device.current].state = Thread::kInBarrier;
  if (++device.in_barrier == device.count) {
    device.in_barrier = 0;
    for (int i = 0; i < device.count; ++i) wake(i);
  }
  leave();
}

extern "C" {

// Forgets regions, counts and errors; the order of fibers follows from `seed`.
void emulation_reset(uint64_t seed) {
  device.regions.clear();
  device.last_region = 0;
  device.error.clear();
  device.shared_allowed = kSharedDefault;
  device.random = 0x9e3779b97f4a7c15ull * (2 * seed + 1);
}

// Shared memory that a block may ask for; holds until it is set anew.
void emulation_limit_shared(size_t bytes) { device.shared_most = bytes; }

int emulation_region(const void* p, size_t bytes, int flags) {
  device.regions.push_back(
      {static_cast<const char*>(p), bytes, flags, 0, 0, std::vector<bool>(bytes, false)});
  return static_cast<int>(device.regions.size()) - 1;
}

int64_t emulation_read_bytes(int region) { return device.regions[region].bytes_read; }
int64_t emulation_written_bytes(int region) { return device.regions[region].bytes_written; }

int64_t emulation_unwritten(int region) {
  int64_t count = 0;
  for (bool w : device.regions[region].written) count += !w;
  return count;
}

const char* emulation_error() { return device.error.c_str(); }

}  // extern "C"

}  // namespace emulation

cudaError_t cudaGetLastError() { return emulation::device.error.empty() ? 0 : 1; }

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = static_cast<int>(emulation::device.shared_most);
  return 0;
}

cudaError_t emulation_allow_shared(int bytes) {
  if (static_cast<size_t>(bytes) > emulation::device.shared_most) {
    emulation::device.error =
        "a kernel asked for " + std::to_string(bytes) + " bytes of shared memory";
    return 1;
  }
  emulation::device.shared_allowed = static_cast<size_t>(bytes);
  return 0;
}
