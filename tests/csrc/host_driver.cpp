// The kernels of csrc/ as host code behind the entry points of the CUDA driver that
// visionlab.rotation.nvrtc calls, so that tests run its real launch code without a GPU.
#include "cuda_on_host.h"

#include <string>

#include "kernels.cuh"

namespace {

struct Launch {
  unsigned grid[3], block, shared_bytes;
  void* stream;
};

Launch last;
unsigned seed = 0;
unsigned allowed_shared_bytes = 48 * 1024;
const char* last_error = "";
thread_local int current_device = -1;  // that of the current context, per thread as in CUDA

// A context is the address of its device's number.
int device_numbers[] = {0, 1};

bool without_context() {
  last_error = "invalid device context";
  return current_device < 0;
}

void run(const std::string& name, const Dim3& grid, unsigned block, size_t shared, void* job) {
  if (name == "hough_so3_vote")
    host::launch(grid, block, shared, seed, [&] { hough_so3_vote(*static_cast<HoughVote*>(job)); });
  else if (name == "hough_so3_unpack")
    host::launch(grid, block, shared, seed, [&] { hough_so3_unpack(*static_cast<HoughVote*>(job)); });
  else
    host::launch(grid, block, shared, seed, [&] { hough_so3_refine(*static_cast<HoughRefine*>(job)); });
}

}  // namespace

extern "C" {

void host_set_seed(unsigned value) { seed = value; }
void host_set_shared_limit(unsigned bytes) { allowed_shared_bytes = bytes; }
const Launch* host_last_launch() { return &last; }
unsigned host_vote_job_bytes() { return sizeof(HoughVote); }
unsigned host_refine_job_bytes() { return sizeof(HoughRefine); }
unsigned host_refine_shared_bytes() { return sizeof(RefineShared); }

void host_plan(int lines_per_frame, int bins, int shared_limit, int* plan) {
  const HoughPlan made = hough_plan(lines_per_frame, bins, shared_limit);
  plan[0] = made.threads;
  plan[1] = made.rows;
  plan[2] = made.tiles;
  plan[3] = made.shared_bytes;
}

// One slab of a grid that would take the host too long, then the unpacking.
void host_run_slab(HoughVote* job, unsigned slab, unsigned tiles, unsigned shared_bytes) {
  host::launch(Dim3{slab + 1, 1, tiles}, 64, shared_bytes, seed, [&] { hough_so3_vote(*job); }, slab);
  host::launch(Dim3{1, 1, 1}, 32, 0, seed, [&] { hough_so3_unpack(*job); });
}

int cuGetErrorString(int, const char** text) {
  *text = last_error;
  return 0;
}

int host_current_device() { return current_device; }

int cuDeviceGet(int* device, int ordinal) {
  last_error = "invalid device ordinal";
  *device = ordinal;
  return ordinal < 0 || ordinal > 1 ? 101 : 0;
}

int cuDevicePrimaryCtxRetain(void** context, int device) {
  *context = &device_numbers[device];
  return 0;
}

int cuCtxSetCurrent(void* context) {
  current_device = *static_cast<int*>(context);
  return 0;
}

int cuModuleLoadData(void** module, const void*) {
  if (without_context()) return 201;
  static int token;
  *module = &token;
  return 0;
}

int cuModuleGetFunction(void** function, void*, const char* name) {
  static const char* const known[] = {"hough_so3_vote", "hough_so3_unpack", "hough_so3_refine"};
  last_error = "named symbol not found";
  for (const char* one : known)
    if (std::strcmp(name, one) == 0) {
      *function = const_cast<char*>(one);
      return 0;
    }
  return 500;
}

int cuFuncSetAttribute(void*, int attribute, int value) {
  last_error = "invalid argument";
  if (attribute != 8) return 1;  // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
  allowed_shared_bytes = value;
  return 0;
}

int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                   unsigned bz, unsigned shared_bytes, void* stream, void** parameters, void** extra) {
  if (without_context()) return 201;
  last_error = "invalid argument";
  if (by != 1 || bz != 1 || extra != nullptr || gx == 0 || gy == 0 || gz == 0) return 1;
  if (gy > 65535 || gz > 65535 || bx > 512 || shared_bytes > allowed_shared_bytes) return 1;
  last = Launch{{gx, gy, gz}, bx, shared_bytes, stream};
  try {
    run(static_cast<const char*>(function), Dim3{gx, gy, gz}, bx, shared_bytes, parameters[0]);
  } catch (const std::exception& error) {
    static std::string kept;
    kept = error.what();
    last_error = kept.c_str();
    return 700;
  }
  return 0;
}

}  // extern "C"
