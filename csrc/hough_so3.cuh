// Hough voting on SO(3), one block per (frame, slab, tile): see csrc/README.md.
//
// This text includes nothing, so that NVRTC can compile it without any header; nvcc compiles the
// same text inside hough_so3.cu, and a C++ compiler compiles it in tests/csrc against the NumPy twin.
//
// A correspondence of bearings is a straight line in the box of rotations. In units of bins, with the
// slab number k as parameter, it passes through (x0 + dx k, y0 + dy k, k). A block owns the cells
// [0, bins) x [row0, row0 + rows) of one slab, counts the lines through each of them in shared memory,
// and remembers the fullest cell it has seen *while counting*: votes never decrease, so the last
// increment of a cell reports its final count, and no second pass over the histogram is needed.

typedef unsigned long long hough_u64;

struct HoughVote {
  const double* lines;   // (frames, lines_per_frame, 4): x0, dx, y0, dy
  const int* weights;    // (frames, lines_per_frame), <= 0 never votes; null means 1 everywhere
  hough_u64* result;     // (frames, 2): the key while voting, then cell and votes
  int frames;
  int lines_per_frame;
  int bins;              // cells per axis, at most HOUGH_MAX_BINS
  int rows;              // cells of the y axis that one block owns
};

// Shared memory in front of the histogram: the block's best key, padded to 16 bytes.
#define HOUGH_HEADER_BYTES 16
#define HOUGH_MAX_THREADS 512
#define HOUGH_MAX_BINS 1625  // the largest whose cells can be numbered in 32 bits

struct HoughPlan {
  int threads, rows, tiles, shared_bytes;
};

// How to launch hough_so3_vote where a block may have `shared_limit` bytes of shared memory: whole
// slabs where they fit, else as few tiles of the y axis as possible. nvrtc.plan_launch is its twin.
__host__ __device__ inline HoughPlan hough_plan(int lines_per_frame, int bins, int shared_limit) {
  const int most_rows = (shared_limit - HOUGH_HEADER_BYTES) / (4 * bins);
  const int tiles = (bins + most_rows - 1) / most_rows;
  const int rows = (bins + tiles - 1) / tiles;
  const int threads = lines_per_frame <= 2048 ? 256 : HOUGH_MAX_THREADS;
  return HoughPlan{threads, rows, tiles, HOUGH_HEADER_BYTES + 4 * bins * rows};
}

// Keys order candidates by votes, and equal votes by the *lowest* flat index (x, y, z order):
// exactly the tie rule of the NumPy twin, whatever the order in which atomics arrive.
__device__ inline hough_u64 hough_key(unsigned votes, unsigned cell) {
  return ((hough_u64)votes << 32) | (hough_u64)(0xFFFFFFFFu - cell);
}

// x0 + dx k, product and sum rounded separately: a fused multiply-add would move votes across the
// border of a cell. NaN and infinity fail the range test and cast no vote.
__device__ inline int hough_index(double start, double slope, double k, double bins) {
  const double position = __dadd_rn(start, __dmul_rn(slope, k));
  return (position >= 0.0 && position < bins) ? (int)position : -1;
}

__device__ inline hough_u64 hough_max(hough_u64 a, hough_u64 b) { return a > b ? a : b; }

__device__ void hough_vote_frame(const HoughVote& job, int frame, hough_u64* block_best,
                                 unsigned* histogram) {
  const unsigned bins = (unsigned)job.bins;
  const unsigned slab = blockIdx.x;
  const int row0 = (int)blockIdx.z * job.rows;
  const int cells = job.bins * job.rows;
  const double k = (double)slab;
  const double end = (double)job.bins;

  for (int i = (int)threadIdx.x; i < cells; i += (int)blockDim.x) histogram[i] = 0u;
  if (threadIdx.x == 0) *block_best = 0ull;
  __syncthreads();

  const double* lines = job.lines + 4ll * frame * job.lines_per_frame;
  const int* weights = job.weights ? job.weights + (long long)frame * job.lines_per_frame : nullptr;
  hough_u64 best = 0ull;
  for (int i = (int)threadIdx.x; i < job.lines_per_frame; i += (int)blockDim.x) {
    const int weight = weights ? weights[i] : 1;
    const double* line = lines + 4ll * i;
    const int x = hough_index(line[0], line[1], k, end);
    const int y = hough_index(line[2], line[3], k, end);
    const int row = y - row0;
    if (weight <= 0 || x < 0 || y < 0 || row < 0 || row >= job.rows) continue;
    const unsigned votes = atomicAdd(&histogram[x * job.rows + row], (unsigned)weight) + weight;
    best = hough_max(best, hough_key(votes, ((unsigned)x * bins + (unsigned)y) * bins + slab));
  }

  for (int offset = 16; offset > 0; offset /= 2)
    best = hough_max(best, __shfl_down_sync(0xFFFFFFFFu, best, offset));
  if (threadIdx.x % 32 == 0 && best != 0ull) atomicMax(block_best, best);
  __syncthreads();
  if (threadIdx.x == 0 && *block_best != 0ull) atomicMax(&job.result[2ll * frame], *block_best);
  __syncthreads();  // the next frame of this block clears what was just read
}

// Grid (bins, any, tiles), block a multiple of 32, see hough_plan. `result` must hold zeros. Frames
// beyond gridDim.y are taken in further rounds.
extern "C" __global__ void __launch_bounds__(HOUGH_MAX_THREADS) hough_so3_vote(HoughVote job) {
  extern __shared__ hough_u64 hough_shared[];
  unsigned* histogram = (unsigned*)((char*)hough_shared + HOUGH_HEADER_BYTES);
  for (int frame = (int)blockIdx.y; frame < job.frames; frame += (int)gridDim.y)
    hough_vote_frame(job, frame, hough_shared, histogram);
}

// Turns each frame's key into (cell, votes); a frame without any vote gets cell -1 and 0 votes.
extern "C" __global__ void __launch_bounds__(HOUGH_MAX_THREADS) hough_so3_unpack(HoughVote job) {
  const int stride = (int)(gridDim.x * blockDim.x);
  for (int frame = (int)(blockIdx.x * blockDim.x + threadIdx.x); frame < job.frames; frame += stride) {
    const hough_u64 key = job.result[2ll * frame];
    job.result[2ll * frame] = key ? (hough_u64)(0xFFFFFFFFu - (unsigned)key) : ~0ull;
    job.result[2ll * frame + 1] = key >> 32;
  }
}
