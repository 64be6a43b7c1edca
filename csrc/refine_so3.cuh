// Robust re-weighted least squares for a camera rotation, one block per frame: see csrc/README.md.
//
// Like hough_so3.cuh, whose types it uses and behind which it is compiled, this text includes nothing.
// It is the twin of visionlab/rotation/refinement_numba.py: the same schedule, the same histogram for
// the noise. Sums run in a fixed order, so that the same input gives the same bits on the same device.

#define REFINE_PASSES 10
#define REFINE_ANNEAL 5          // passes while the scale shrinks
#define REFINE_MODE_SCALE 0.3    // px, where annealing ends
#define REFINE_LEAST_SCALE 0.15  // px, limits of the measured noise
#define REFINE_MOST_SCALE 1.0
#define REFINE_THIN_ABOVE 3000  // annealing passes see every third of more vectors than these
#define REFINE_MAD_BINS 512
#define REFINE_SUMS 9   // 6 of J^T W J, 3 of J^T W r
#define REFINE_OUT 11   // rotation vector, scale, covariance (xx xy xz yy yz zz), solved
#define REFINE_MAX_WARPS (HOUGH_MAX_THREADS / 32)

struct HoughRefine {
  const double* rows;   // (frames, 6, vectors): x, y, u, v on the plane z = 1, focal in px, weight
  const int* counts;    // (frames,): only the first so many vectors are in use; null means all
  const double* start;  // (frames, 3) rad
  double* result;       // (frames, REFINE_OUT)
  double first_scale;   // px
  double scale;         // px, final; 0 means from the residuals
  int frames;
  int vectors;
};

// What the threads of a block share.
struct RefineShared {
  double matrix[9];
  double sums[REFINE_SUMS];
  double partial[REFINE_SUMS * REFINE_MAX_WARPS];
  double target;
  hough_u64 histogram[REFINE_MAD_BINS];
  hough_u64 heaviest;  // bits of the largest weight; those of non-negative doubles are ordered
  int state;           // 0 go on, 1 converged, 2 singular
};

// One frame's vectors, by rows.
struct RefineRows {
  const double *x, *y, *u, *v, *focal, *weight;
  int count;
};

__device__ inline RefineRows refine_rows(const HoughRefine& job, int frame) {
  const long long n = job.vectors;
  const double* row = job.rows + 6 * n * frame;
  return RefineRows{row,         row + n,     row + 2 * n,
                    row + 3 * n, row + 4 * n, row + 5 * n, job.counts ? job.counts[frame] : job.vectors};
}

// Where a static point (x, y, 1) is seen in frame i+1, q ~ R^T p: the transpose by reading columns.
__device__ inline void refine_predict(const double* m, double x, double y, double* px, double* py) {
  const double inverse = 1.0 / (m[2] * x + m[5] * y + m[8]);
  *px = (m[0] * x + m[3] * y + m[6]) * inverse;
  *py = (m[1] * x + m[4] * y + m[7]) * inverse;
}

__device__ void refine_exp(const double* w, double* m) {
  const double square = w[0] * w[0] + w[1] * w[1] + w[2] * w[2];
  const double angle = sqrt(square);
  const bool small = angle < 1e-4;
  const double first = small ? 1.0 - square / 6.0 : sin(angle) / angle;
  const double second = small ? 0.5 - square / 24.0 : (1.0 - cos(angle)) / square;
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 3; ++j) m[3 * i + j] = second * w[i] * w[j];
  for (int i = 0; i < 3; ++i) m[4 * i] += 1.0 - second * square;
  m[1] -= first * w[2];
  m[3] += first * w[2];
  m[2] += first * w[1];
  m[6] -= first * w[1];
  m[5] -= first * w[0];
  m[7] += first * w[0];
}

// For angles well below pi.
__device__ void refine_log(const double* m, double* w) {
  w[0] = (m[7] - m[5]) / 2.0;
  w[1] = (m[2] - m[6]) / 2.0;
  w[2] = (m[3] - m[1]) / 2.0;
  const double sine = sqrt(w[0] * w[0] + w[1] * w[1] + w[2] * w[2]);
  if (sine < 1e-9) return;
  const double factor = atan2(sine, (m[0] + m[4] + m[8] - 1.0) / 2.0) / sine;
  for (int i = 0; i < 3; ++i) w[i] *= factor;
}

// Cofactors (xx xy xz yy yz zz) of the information matrix; returns its determinant.
__device__ double refine_cofactors(const double* a, double* c) {
  c[0] = a[3] * a[5] - a[4] * a[4];
  c[1] = a[2] * a[4] - a[1] * a[5];
  c[2] = a[1] * a[4] - a[2] * a[3];
  c[3] = a[0] * a[5] - a[2] * a[2];
  c[4] = a[1] * a[2] - a[0] * a[4];
  c[5] = a[0] * a[3] - a[1] * a[1];
  return a[0] * c[0] + a[1] * c[1] + a[2] * c[2];
}

// This thread's share of the weighted sums of one pass, over every `step`-th vector.
__device__ void refine_accumulate(const RefineRows& rows, const double* m, double scale, int step,
                                  double* sums) {
  const double s2 = scale * scale;
  for (int j = 0; j < REFINE_SUMS; ++j) sums[j] = 0.0;
  for (int i = step * (int)threadIdx.x; i < rows.count; i += step * (int)blockDim.x) {
    double px, py;
    refine_predict(m, rows.x[i], rows.y[i], &px, &py);
    const double f2 = rows.focal[i] * rows.focal[i];
    const double rx = rows.u[i] - px, ry = rows.v[i] - py;
    const double ratio = s2 / (s2 + f2 * (rx * rx + ry * ry));
    const double k = ratio * ratio * rows.weight[i] * f2;
    const double xy = px * py, xx = 1.0 + px * px, yy = 1.0 + py * py;
    sums[0] += k * (xy * xy + yy * yy);
    sums[1] += -k * xy * (xx + yy);
    sums[2] += k * (xy * py - yy * px);
    sums[3] += k * (xx * xx + xy * xy);
    sums[4] += k * (xy * px - xx * py);
    sums[5] += k * (py * py + px * px);
    sums[6] += k * (xy * rx + yy * ry);
    sums[7] += -k * (xx * rx + xy * ry);
    sums[8] += k * (py * rx - px * ry);
  }
}

// Adds the threads' sums in a fixed order: lanes by halves, then warps one after the other.
__device__ void refine_reduce(double* sums, RefineShared* shared) {
  const int warps = (int)blockDim.x / 32, warp = (int)threadIdx.x / 32;
  for (int j = 0; j < REFINE_SUMS; ++j) {
    for (int offset = 16; offset > 0; offset /= 2)
      sums[j] += __shfl_down_sync(0xFFFFFFFFu, sums[j], offset);
    if (threadIdx.x % 32 == 0) shared->partial[REFINE_SUMS * warp + j] = sums[j];
  }
  __syncthreads();
  if (threadIdx.x < REFINE_SUMS) {
    double total = 0.0;
    for (int i = 0; i < warps; ++i) total += shared->partial[REFINE_SUMS * i + (int)threadIdx.x];
    shared->sums[threadIdx.x] = total;
  }
  __syncthreads();
}

// Noise by the weighted median of |component| among residuals shorter than three `MODE_SCALE`, from a
// histogram of integer weights: exact sums, whatever the order of the atomics.
__device__ void refine_measure_scale(const RefineRows& rows, RefineShared* shared) {
  const double reach = 3.0 * REFINE_MODE_SCALE, to_bin = REFINE_MAD_BINS / reach;
  for (int j = (int)threadIdx.x; j < REFINE_MAD_BINS; j += (int)blockDim.x) shared->histogram[j] = 0ull;
  if (threadIdx.x == 0) shared->heaviest = 0ull;
  __syncthreads();
  double heaviest = 0.0;
  for (int i = (int)threadIdx.x; i < rows.count; i += (int)blockDim.x)
    heaviest = rows.weight[i] > heaviest ? rows.weight[i] : heaviest;
  atomicMax(&shared->heaviest, (hough_u64)__double_as_longlong(heaviest));
  __syncthreads();
  const double unit = 1048576.0 / __longlong_as_double((long long)shared->heaviest);
  for (int i = (int)threadIdx.x; i < rows.count; i += (int)blockDim.x) {
    double px, py;
    refine_predict(shared->matrix, rows.x[i], rows.y[i], &px, &py);
    const double a = fabs(rows.focal[i] * (rows.u[i] - px)), b = fabs(rows.focal[i] * (rows.v[i] - py));
    if (!(a * a + b * b < reach * reach) || !(rows.weight[i] > 0.0)) continue;
    const hough_u64 weight = (hough_u64)(rows.weight[i] * unit + 0.5);
    const int last = REFINE_MAD_BINS - 1, bin_a = (int)(a * to_bin), bin_b = (int)(b * to_bin);
    atomicAdd(&shared->histogram[bin_a < last ? bin_a : last], weight);
    atomicAdd(&shared->histogram[bin_b < last ? bin_b : last], weight);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    hough_u64 all = 0ull, total = 0ull;
    for (int j = 0; j < REFINE_MAD_BINS; ++j) all += shared->histogram[j];
    const double half = (double)all / 2.0;
    double median = 0.0;
    for (int j = 0; j < REFINE_MAD_BINS; ++j) {
      const hough_u64 here = shared->histogram[j];
      if (here > 0ull && (double)(total + here) >= half) {
        median = (j + (half - (double)total) / (double)here) / to_bin;
        break;
      }
      total += here;
    }
    const double spread = 1.4826 * median;
    shared->target = spread < REFINE_LEAST_SCALE ? REFINE_LEAST_SCALE
                     : spread > REFINE_MOST_SCALE ? REFINE_MOST_SCALE
                                                  : spread;
  }
  __syncthreads();
}

// One Gauss-Newton step from the block's sums, R <- R exp(step); by one thread.
__device__ void refine_step(RefineShared* shared, int pass) {
  const double* a = shared->sums;
  double c[6], step[3], turn[9], product[9];
  const double determinant = refine_cofactors(a, c);
  if (!(determinant > 1e-12 * a[0] * a[3] * a[5])) {
    shared->state = 2;
    return;
  }
  step[0] = (c[0] * a[6] + c[1] * a[7] + c[2] * a[8]) / determinant;
  step[1] = (c[1] * a[6] + c[3] * a[7] + c[4] * a[8]) / determinant;
  step[2] = (c[2] * a[6] + c[4] * a[7] + c[5] * a[8]) / determinant;
  refine_exp(step, turn);
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 3; ++j)
      product[3 * i + j] = shared->matrix[3 * i] * turn[j] + shared->matrix[3 * i + 1] * turn[3 + j] +
                           shared->matrix[3 * i + 2] * turn[6 + j];
  for (int i = 0; i < 9; ++i) shared->matrix[i] = product[i];
  const double largest = fmax(fabs(step[0]), fmax(fabs(step[1]), fabs(step[2])));
  if (pass > REFINE_ANNEAL && largest < 1e-8) shared->state = 1;
}

__device__ void refine_write(const RefineShared* shared, double* out) {
  double c[6];
  refine_log(shared->matrix, out);
  out[3] = shared->target;
  const double variance = shared->target * shared->target;
  const double determinant = refine_cofactors(shared->sums, c);
  const bool solved = shared->state != 2;
  for (int j = 0; j < 6; ++j) out[4 + j] = solved ? variance * c[j] / determinant : 0.0;
  out[10] = solved ? 1.0 : 0.0;
}

__device__ void refine_frame(const HoughRefine& job, int frame, RefineShared* shared) {
  const RefineRows rows = refine_rows(job, frame);
  const int thin = rows.count > REFINE_THIN_ABOVE ? 3 : 1;
  const bool automatic = !(job.scale > 0.0);
  double sums[REFINE_SUMS];
  if (threadIdx.x == 0) {
    refine_exp(job.start + 3ll * frame, shared->matrix);
    shared->target = automatic ? REFINE_MODE_SCALE : job.scale;
    shared->state = 0;
  }
  __syncthreads();
  for (int pass = 0; pass < REFINE_PASSES && shared->state == 0; ++pass) {
    const bool annealing = pass < REFINE_ANNEAL;
    if (pass == REFINE_ANNEAL && automatic) refine_measure_scale(rows, shared);
    double scale = shared->target;
    if (annealing)
      scale = job.first_scale * pow(scale / job.first_scale, (double)pass / (REFINE_ANNEAL - 1));
    refine_accumulate(rows, shared->matrix, scale, annealing ? thin : 1, sums);
    refine_reduce(sums, shared);
    if (threadIdx.x == 0) refine_step(shared, pass);
    __syncthreads();
  }
  if (threadIdx.x == 0) refine_write(shared, job.result + (long long)REFINE_OUT * frame);
  __syncthreads();  // the next frame of this block overwrites what was just read
}

// Grid (any), block a multiple of 32, shared memory sizeof(RefineShared).
extern "C" __global__ void __launch_bounds__(HOUGH_MAX_THREADS) hough_so3_refine(HoughRefine job) {
  extern __shared__ hough_u64 hough_shared[];
  for (int frame = (int)blockIdx.x; frame < job.frames; frame += (int)gridDim.x)
    refine_frame(job, frame, (RefineShared*)hough_shared);
}
