// visionlab::hough_vote and visionlab::so3_refine for CUDA tensors, on torch's stable ABI: one library
// for torch >= 2.10. It only *implements* the ops; visionlab/rotation/op.py defines them. Built by
// tools/build_cuda.py.

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <atomic>
#include <optional>

#include "hough_so3.cuh"
#include "refine_so3.cuh"

#ifndef HOUGH_TEXT_HASH
#error "build with tools/build_cuda.py, which passes the hash of the kernel text"
#endif

// The loader refuses a library whose kernel text is not the one shipped beside it.
extern "C" __attribute__((visibility("default"))) const char* hough_so3_text_hash() {
  return HOUGH_TEXT_HASH;
}

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

void check(const Tensor& lines, const std::optional<Tensor>& weights, int64_t bins) {
  STD_TORCH_CHECK(lines.is_cuda() && lines.scalar_type() == ScalarType::Double && lines.dim() == 3 &&
                      lines.size(2) == 4 && lines.is_contiguous(),
                  "hough_vote: lines must be a contiguous (B, N, 4) float64 CUDA tensor");
  STD_TORCH_CHECK(bins > 0 && bins <= HOUGH_MAX_BINS, "hough_vote: bins must be in 1..",
                  HOUGH_MAX_BINS, ", got ", bins);
  if (!weights) return;
  STD_TORCH_CHECK(weights->scalar_type() == ScalarType::Int && weights->dim() == 2 &&
                      weights->size(0) == lines.size(0) && weights->size(1) == lines.size(1) &&
                      weights->is_contiguous() && weights->get_device() == lines.get_device(),
                  "hough_vote: weights must be a contiguous (B, N) int32 tensor beside lines");
}

cudaStream_t current_stream(int device) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  return static_cast<cudaStream_t>(stream);
}

int shared_memory_limit(int device) {
  int limit = 0;
  STD_CUDA_CHECK(cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  return limit;
}

// More than 48 KB of shared memory has to be asked for, once per device and size.
void allow_shared_memory(int device, int bytes) {
  constexpr int kDevices = 64;
  static std::atomic<int> allowed[kDevices];
  if (bytes <= 48 * 1024 || (device < kDevices && bytes <= allowed[device])) return;
  STD_CUDA_CHECK(
      cudaFuncSetAttribute(hough_so3_vote, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  if (device < kDevices) allowed[device] = bytes;
}

Tensor hough_vote(Tensor lines, std::optional<Tensor> weights, int64_t bins) {
  check(lines, weights, bins);
  const int device = lines.get_device();
  const torch::stable::accelerator::DeviceGuard guard(device);
  const cudaStream_t stream = current_stream(device);
  Tensor result = torch::stable::new_zeros(lines, {lines.size(0), 2}, ScalarType::Long);
  const int frames = static_cast<int>(lines.size(0));
  if (frames == 0) return result;
  const int count = static_cast<int>(lines.size(1));
  const HoughPlan plan = hough_plan(count, static_cast<int>(bins), shared_memory_limit(device));
  allow_shared_memory(device, plan.shared_bytes);
  const HoughVote job{static_cast<const double*>(lines.data_ptr()),
                      weights ? static_cast<const int*>(weights->data_ptr()) : nullptr,
                      static_cast<hough_u64*>(result.data_ptr()),
                      frames,
                      count,
                      static_cast<int>(bins),
                      plan.rows};
  const dim3 grid(job.bins, std::min(frames, 65535), plan.tiles);
  hough_so3_vote<<<grid, plan.threads, plan.shared_bytes, stream>>>(job);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  hough_so3_unpack<<<(frames + 255) / 256, 256, 0, stream>>>(job);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return result;
}

void check_rows(const Tensor& rows, const std::optional<Tensor>& counts, const Tensor& start) {
  const int64_t frames = rows.size(0);
  const int device = rows.get_device();
  STD_TORCH_CHECK(rows.is_cuda() && rows.scalar_type() == ScalarType::Double && rows.dim() == 3 &&
                      rows.size(1) == 6 && rows.is_contiguous(),
                  "so3_refine: rows must be a contiguous (B, 6, N) float64 CUDA tensor");
  STD_TORCH_CHECK(start.scalar_type() == ScalarType::Double && start.dim() == 2 &&
                      start.size(0) == frames && start.size(1) == 3 && start.is_contiguous() &&
                      start.get_device() == device,
                  "so3_refine: start must be a contiguous (B, 3) float64 tensor beside rows");
  STD_TORCH_CHECK(!counts || (counts->scalar_type() == ScalarType::Int && counts->dim() == 1 &&
                              counts->size(0) == frames && counts->is_contiguous() &&
                              counts->get_device() == device),
                  "so3_refine: counts must be a contiguous (B,) int32 tensor beside rows");
}

Tensor so3_refine(Tensor rows, std::optional<Tensor> counts, Tensor start, double first_scale,
                  double scale) {
  check_rows(rows, counts, start);
  const int device = rows.get_device();
  const torch::stable::accelerator::DeviceGuard guard(device);
  const int frames = static_cast<int>(rows.size(0));
  Tensor result = torch::stable::new_empty(rows, {rows.size(0), REFINE_OUT});
  if (frames == 0) return result;
  const HoughRefine job{static_cast<const double*>(rows.data_ptr()),
                        counts ? static_cast<const int*>(counts->data_ptr()) : nullptr,
                        static_cast<const double*>(start.data_ptr()),
                        static_cast<double*>(result.data_ptr()),
                        first_scale,
                        scale,
                        frames,
                        static_cast<int>(rows.size(2))};
  hough_so3_refine<<<frames, 256, sizeof(RefineShared), current_stream(device)>>>(job);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(visionlab, CUDA, library) {
  library.impl("hough_vote", TORCH_BOX(&hough_vote));
  library.impl("so3_refine", TORCH_BOX(&so3_refine));
}
