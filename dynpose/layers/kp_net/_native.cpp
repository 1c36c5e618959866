// The KP-Net operator on a CPU: all layers of a tile of cells at a time, so that no hidden map is written to memory.
//
// Plain C functions, called through ctypes: no header of Python or PyTorch is needed. The cells of a tile are the lanes
// of the vectors, whose width is that of the instruction set that this is compiled for. Tiles are grouped into ranges,
// whose number depends only on the size of the map; what is summed over ranges or instances is summed in a fixed order,
// so that results do not depend on the number of threads.
//
// Letters: N instances, C feature channels, K keypoints, T tiles of TILE cells in an image.

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace {

constexpr int TILE = 48;          // cells: a multiple of three vectors of any width
constexpr int GROUP = 4;          // tiles whose logits are reduced together
constexpr int MAX_RANGES = 32;    // upper bound of the parallelism for one instance
constexpr int CHUNK = 32;         // instances whose gradients are held for every range

// The networks of one call. The weights of an instance are those of the layers, each (out, in) followed by (out,)
// biases; the input channels are the C features, x and y.
struct Nets {
  const float* inputs;         // (B, T, C + 2, TILE)
  const float* weights;        // (N, P)
  const int64_t* image_index;  // (N,)
  int64_t num_nets, num_cells, num_tiles, channels, width, depth, num_keypoints;

  int64_t inputs_of(int64_t layer) const { return layer == 0 ? channels + 2 : width; }
  int64_t outputs_of(int64_t layer) const { return layer == depth - 1 ? num_keypoints : width; }
  int64_t num_weights() const {
    int64_t size = 0;
    for (int64_t layer = 0; layer < depth; ++layer) size += (inputs_of(layer) + 1) * outputs_of(layer);
    return size;
  }
  const float* tile(int64_t net, int64_t index) const {
    return inputs + (image_index[net] * num_tiles + index) * (channels + 2) * TILE;
  }
  int64_t tiles_per_range() const {
    const int64_t tiles = (num_tiles + MAX_RANGES - 1) / MAX_RANGES;
    return (tiles + GROUP - 1) / GROUP * GROUP;
  }
  int64_t num_ranges() const { return (num_tiles + tiles_per_range() - 1) / tiles_per_range(); }
  int64_t end_of(int64_t range) const {
    const int64_t end = (range + 1) * tiles_per_range();
    return end < num_tiles ? end : num_tiles;
  }
};

// The highest logit of a heatmap, its first cell, and the sum of exp(logit - highest).
struct Peak {
  float highest, sum;
  int64_t cell;
};

struct Forward {
  Nets nets;
  const int64_t* targets;  // (N, K), or null
  Peak* peaks;             // (ranges, N, K), or null
  float* at_target;        // (N, K), or null
  float* heatmaps;         // (N, K, cells), or null
};

struct Backward {
  Nets nets;
  const float* grad;        // (N, K) of the losses, or (N, K, cells) of the heatmaps
  const int64_t* targets;   // (N, K); null for heatmaps
  const float* log_sums;    // (N, K); null for heatmaps
  float* grad_inputs;       // (B, T, C, TILE) zeros, or null
  float* grad_weights;      // (N, P), or null
  float* partial_weights;   // (ranges, CHUNK, P)
  int64_t first_net, end_net;  // of the chunk
};

// --- vectors ---

#if defined(__AVX512F__)
constexpr int LANES = 16, REGISTERS = 32;
#elif defined(__AVX2__)
constexpr int LANES = 8, REGISTERS = 16;
#else
constexpr int LANES = 4, REGISTERS = 16;
#endif

// May be read from and written to any address of a float.
typedef float V __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef uint32_t Bits __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

V load(const float* from) {
  return *reinterpret_cast<const V*>(from);
}

void store(float* to, V value) {
  *reinterpret_cast<V*>(to) = value;
}

V larger(V a, V b) {  // b if one is NaN
  return a > b ? a : b;
}

V broadcast(float value) {
  const V zero = {};
  return value - zero;  // unlike value + zero, nothing is left to compute
}

float sum_of(V vector) {
  float sum = 0;
  for (int lane = 0; lane < LANES; ++lane) sum += vector[lane];
  return sum;
}

// exp(x) for x <= 0; NaN for NaN. Below -87, close to the smallest float, it is exp(-87). The relative error is below
// 5e-7; without fused multiply-add it grows from 3e-7 at 0 to 5e-6 at -87, where the value hardly counts in a sum.
V exp_of(V x) {
  x = larger(broadcast(-87.0f), x);
  // Adding 1.5 * 2^23 leaves the nearest integer in the low bits; 127 is the bias of the exponent.
  const V shifted = x * 1.44269504f + 12583039.0f;
  const V r = x - (shifted - 12583039.0f) * 0.693147181f;
  V p = broadcast(0.00836915098f);  // a Chebyshev fit of (exp(r) - 1) / r, so that exp(0) is 1
  p = p * r + 0.0418756669f;
  p = p * r + 0.166665052f;
  p = p * r + 0.499993719f;
  p = p * r + 1.00000001f;
  p = p * r + 1.0f;
  return p * (V)((Bits)shifted << 23);
}

// --- matrix products ---

// Round up to whole vectors.
int64_t padded(int64_t size) { return (size + LANES - 1) / LANES * LANES; }

float* allocate(int64_t size) { return static_cast<float*>(aligned_alloc(64, (size + 15) / 16 * 64)); }

// What a product does with the result of row m.
struct Epilogue {
  const float* bias;  // (m,) added, or null
  const float* mask;  // (m, lanes) with the strides of the result: zero where it is not positive; or null
  bool relu, add;     // add: to the result's old values
};

// Rows x Vectors of the product of a (strides of rows and columns) and b (depth, lanes).
template <int Rows, int Vectors>
void product_block(const float* a, int64_t a_row, int64_t a_column, const float* b, int64_t b_row, int64_t depth,
                          float* result, int64_t result_row, const Epilogue& epilogue, int64_t row) {
  const V zero = {};
  V sums[Rows][Vectors];
#pragma GCC unroll 12
  for (int m = 0; m < Rows; ++m)
#pragma GCC unroll 3
    for (int v = 0; v < Vectors; ++v) sums[m][v] = epilogue.bias ? broadcast(epilogue.bias[row + m]) : zero;
  for (int64_t k = 0; k < depth; ++k) {
    V factors[Vectors];
#pragma GCC unroll 3
    for (int v = 0; v < Vectors; ++v) factors[v] = load(b + k * b_row + v * LANES);
#pragma GCC unroll 12
    for (int m = 0; m < Rows; ++m) {
      const V factor = broadcast(a[m * a_row + k * a_column]);
#pragma GCC unroll 3
      for (int v = 0; v < Vectors; ++v) sums[m][v] += factor * factors[v];
    }
  }
#pragma GCC unroll 12
  for (int m = 0; m < Rows; ++m)
#pragma GCC unroll 3
    for (int v = 0; v < Vectors; ++v) {
      float* to = result + m * result_row + v * LANES;
      V value = sums[m][v];
      if (epilogue.relu) value = larger(zero, value);  // NaN stays NaN
      if (epilogue.mask) value = load(epilogue.mask + (to - result) + row * result_row) <= zero ? zero : value;
      if (epilogue.add) value += load(to);
      store(to, value);
    }
}

template <int Vectors>
void product_columns(int64_t rows, const float* a, int64_t a_row, int64_t a_column, const float* b,
                            int64_t b_row, int64_t depth, float* result, int64_t result_row, Epilogue epilogue) {
  // As many sums as registers hold beside the factors; blocks of equal height, so that no narrow one waits for its own
  // sums.
  constexpr int HELD = (REGISTERS - Vectors - 1) / Vectors;
  constexpr int MAX_ROWS = HELD < 8 ? HELD : 8;
  const int64_t blocks = (rows + MAX_ROWS - 1) / MAX_ROWS;
  for (int64_t block = 0, row = 0; block < blocks; ++block) {
    const int64_t height = (rows - row + blocks - block - 1) / (blocks - block);
    const float* from = a + row * a_row;
    float* to = result + row * result_row;
#define CASE(HEIGHT)                                                                                                  \
  case HEIGHT:                                                                                                        \
    if constexpr (HEIGHT <= MAX_ROWS)                                                                                 \
      product_block<HEIGHT, Vectors>(from, a_row, a_column, b, b_row, depth, to, result_row, epilogue, row);       \
    break;
    switch (height) { CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) }
#undef CASE
    row += height;
  }
}

// result (rows, lanes) = a (rows, depth) b (depth, lanes), for whole vectors of lanes.
void product(int64_t rows, int64_t lanes, int64_t depth, const float* a, int64_t a_row, int64_t a_column,
                    const float* b, int64_t b_row, float* result, int64_t result_row, Epilogue epilogue) {
  int64_t left = (lanes + LANES - 1) / LANES;
  while (left > 0) {
    // 4 = 2 + 2
    const int64_t vectors = left == 1 ? 1 : left == 2 || left == 4 ? 2 : 3;
    switch (vectors) {
      case 1: product_columns<1>(rows, a, a_row, a_column, b, b_row, depth, result, result_row, epilogue); break;
      case 2: product_columns<2>(rows, a, a_row, a_column, b, b_row, depth, result, result_row, epilogue); break;
      default: product_columns<3>(rows, a, a_row, a_column, b, b_row, depth, result, result_row, epilogue);
    }
    b += vectors * LANES;
    result += vectors * LANES;
    if (epilogue.mask) epilogue.mask += vectors * LANES;
    left -= vectors;
  }
}

// --- forward ---

// Run a network over a tile. hidden: (depth - 1, width, TILE), or two layers in turn; logits: rows `row` apart.
void run_tile(const Nets& nets, const float* weights, const float* tile, float* hidden, int64_t kept_layers,
                     float* logits, int64_t row) {
  const float* from = tile;
  for (int64_t layer = 0; layer < nets.depth; ++layer) {
    const int64_t n_in = nets.inputs_of(layer), n_out = nets.outputs_of(layer);
    const bool last = layer == nets.depth - 1;
    float* to = last ? logits : hidden + layer % kept_layers * nets.width * TILE;
    product(n_out, TILE, n_in, weights, n_in, 1, from, TILE, to, last ? row : TILE,
               {weights + n_in * n_out, nullptr, !last, false});
    weights += (n_in + 1) * n_out;
    from = to;
  }
}

// The first index of a value that is there.
int64_t first_of(const float* values, int64_t count, float value) {
  const Bits none = {};
  Bits first = none + uint32_t(count);
  for (int64_t i = count - LANES; i >= 0; i -= LANES)
    first = load(values + i) == broadcast(value) ? none + uint32_t(i) : first;
  int64_t lowest = count;
  for (int lane = 0; lane < LANES; ++lane)
    if (first[lane] + lane < lowest) lowest = first[lane] + lane;
  return lowest;
}

void reduce(const float* logits, int64_t count, int64_t first_cell, Peak& peak) {
  V largest = load(logits);
  for (int64_t i = LANES; i < count; i += LANES) largest = larger(largest, load(logits + i));
  float highest = -INFINITY;
  for (int lane = 0; lane < LANES; ++lane) highest = largest[lane] > highest ? largest[lane] : highest;
  if (highest > peak.highest) {
    peak.sum *= expf(peak.highest - highest);
    peak.highest = highest;
    peak.cell = first_cell + first_of(logits, count, highest);
  }
  const float shift = peak.highest == -INFINITY ? 0.0f : peak.highest;
  V sum = {};
  for (int64_t i = 0; i < count; i += LANES) sum += exp_of(load(logits + i) - shift);
  peak.sum += sum_of(sum);
  if (peak.sum != peak.sum && peak.highest == peak.highest)  // a NaN, or infinity
    for (int64_t i = 0; i < count; ++i)
      if (logits[i] != logits[i]) {
        peak.highest = logits[i];
        peak.cell = first_cell + i;
        break;
      }
}

void forward_range(const Forward& call, int64_t range, int64_t net, float* scratch) {
  const Nets& nets = call.nets;
  const int64_t num_keypoints = nets.num_keypoints, row = GROUP * TILE;
  float* logits = scratch;
  float* hidden = scratch + num_keypoints * row;
  const float* weights = nets.weights + net * nets.num_weights();
  Peak* peaks = call.peaks ? call.peaks + (range * nets.num_nets + net) * num_keypoints : nullptr;
  const int64_t begin = range * nets.tiles_per_range(), end = nets.end_of(range);
  for (int64_t k = 0; peaks && k < num_keypoints; ++k) peaks[k] = {-INFINITY, 0.0f, begin * TILE};
  for (int64_t start = begin; start < end; start += GROUP) {
    const int64_t tiles = end - start < GROUP ? end - start : GROUP, first_cell = start * TILE;
    for (int64_t i = 0; i < tiles; ++i)
      run_tile(nets, weights, nets.tile(net, start + i), hidden, 2, logits + i * TILE, row);
    const int64_t in_map = nets.num_cells - first_cell, count = tiles * TILE < in_map ? tiles * TILE : in_map;
    for (int64_t k = 0; k < num_keypoints; ++k) {
      float* of_keypoint = logits + k * row;
      const int64_t heatmap = net * num_keypoints + k;
      if (call.heatmaps)
        memcpy(call.heatmaps + heatmap * nets.num_cells + first_cell, of_keypoint, count * sizeof(float));
      if (!peaks) continue;
      if (call.targets) {
        const int64_t target = call.targets[heatmap] - first_cell;
        if (target >= 0 && target < count) call.at_target[heatmap] = of_keypoint[target];
      }
      for (int64_t i = count; i < tiles * TILE; ++i) of_keypoint[i] = -INFINITY;
      reduce(of_keypoint, tiles * TILE, first_cell, peaks[k]);
    }
  }
}

// --- backward ---

// The gradient of a tile's logits, in place of the logits (K, TILE).
void differentiate_logits(const Backward& call, int64_t net, int64_t first_cell, float* logits) {
  const Nets& nets = call.nets;
  const int64_t in_map = nets.num_cells - first_cell, count = TILE < in_map ? TILE : in_map;
  for (int64_t k = 0; k < nets.num_keypoints; ++k) {
    float* of_keypoint = logits + k * TILE;
    const int64_t heatmap = net * nets.num_keypoints + k;
    if (!call.targets) {
      memcpy(of_keypoint, call.grad + heatmap * nets.num_cells + first_cell, count * sizeof(float));
    } else {
      const float grad = call.grad[heatmap], log_sum = call.log_sums[heatmap];
      for (int64_t i = 0; i < TILE; i += LANES)
        store(of_keypoint + i, exp_of(load(of_keypoint + i) - log_sum) * grad);
      const int64_t target = call.targets[heatmap] - first_cell;
      if (target >= 0 && target < count) of_keypoint[target] -= grad;
    }
    for (int64_t i = count; i < TILE; ++i) of_keypoint[i] = 0.0f;
  }
}

// (TILE, padded rows) from (rows, TILE); the padding is not written.
void transpose(const float* from, int64_t rows, float* to) {
  const int64_t to_row = padded(rows);
  for (int64_t cell = 0; cell < TILE; ++cell)
    for (int64_t i = 0; i < rows; ++i) to[cell * to_row + i] = from[i * TILE + cell];
}

// Add the gradients of a tile. padded_grads: as the weights, but rows and biases padded to whole vectors.
void differentiate_tile(const Nets& nets, const float* weights, const float* tile_by_cell, const float* hidden,
                               float* grad, float* other_grad, float* by_cell, float* padded_grads,
                               float* grad_inputs) {
  const float* end = weights + nets.num_weights();
  if (padded_grads)
    for (int64_t layer = 0; layer < nets.depth; ++layer)
      padded_grads += padded(nets.inputs_of(layer)) * nets.outputs_of(layer) + padded(nets.outputs_of(layer));
  for (int64_t layer = nets.depth - 1; layer >= 0; --layer) {
    const int64_t n_in = nets.inputs_of(layer), n_out = nets.outputs_of(layer), lanes = padded(n_in);
    const float* activations = hidden + (layer - 1) * nets.width * TILE;
    const float* weight = end -= (n_in + 1) * n_out;
    if (padded_grads) {
      padded_grads -= lanes * n_out + padded(n_out);
      if (layer > 0) transpose(activations, n_in, by_cell);
      product(n_out, n_in, TILE, grad, TILE, 1, layer > 0 ? by_cell : tile_by_cell, lanes, padded_grads, lanes,
                 {nullptr, nullptr, false, true});
      for (int64_t out = 0; out < n_out; ++out) {
        V sum = {};
        for (int64_t i = 0; i < TILE; i += LANES) sum += load(grad + out * TILE + i);
        padded_grads[lanes * n_out + out] += sum_of(sum);
      }
    }
    if (layer > 0) {
      product(n_in, TILE, n_out, weight, 1, n_in, grad, TILE, other_grad, TILE,
                 {nullptr, activations, false, false});
      float* swapped = grad;
      grad = other_grad;
      other_grad = swapped;
    } else if (grad_inputs) {
      product(nets.channels, TILE, n_out, weight, 1, n_in, grad, TILE, grad_inputs, TILE,
                 {nullptr, nullptr, false, true});
    }
  }
}

int64_t padded_weights(const Nets& nets) {
  int64_t size = 0;
  for (int64_t layer = 0; layer < nets.depth; ++layer)
    size += padded(nets.inputs_of(layer)) * nets.outputs_of(layer) + padded(nets.outputs_of(layer));
  return size;
}

int64_t widest_layer(const Nets& nets) {
  const int64_t width = nets.depth > 1 && nets.width > nets.num_keypoints ? nets.width : nets.num_keypoints;
  return padded(width > nets.channels + 2 ? width : nets.channels + 2);
}

int64_t backward_scratch(const Nets& nets) {
  const int64_t widest = widest_layer(nets);
  return padded_weights(nets) + TILE * ((nets.depth - 1) * nets.width + 3 * widest) +
         nets.tiles_per_range() * TILE * padded(nets.channels + 2);
}

// One range of cells, for all instances of the chunk: no other range adds to the same gradients.
void backward_range(const Backward& call, int64_t range, float* scratch) {
  const Nets& nets = call.nets;
  const int64_t num_weights = nets.num_weights(), widest = widest_layer(nets);
  const int64_t tile_size = TILE * padded(nets.channels + 2);
  float* padded_grads = scratch;
  float* hidden = padded_grads + padded_weights(nets);
  float* grad = hidden + (nets.depth - 1) * nets.width * TILE;
  float* other_grad = grad + widest * TILE;
  float* by_cell = other_grad + widest * TILE;
  float* tiles_by_cell = by_cell + widest * TILE;
  const int64_t begin = range * nets.tiles_per_range(), end = nets.end_of(range);
  int64_t image = -1;
  for (int64_t net = call.first_net; net < call.end_net; ++net) {
    if (nets.image_index[net] != image && call.grad_weights)
      for (int64_t i = begin; i < end; ++i)
        transpose(nets.tile(net, i), nets.channels + 2, tiles_by_cell + (i - begin) * tile_size);
    image = nets.image_index[net];
    memset(padded_grads, 0, padded_weights(nets) * sizeof(float));
    const float* weights = nets.weights + net * num_weights;
    for (int64_t i = begin; i < end; ++i) {
      run_tile(nets, weights, nets.tile(net, i), hidden, nets.depth, grad, TILE);
      differentiate_logits(call, net, i * TILE, grad);
      differentiate_tile(
          nets, weights, tiles_by_cell + (i - begin) * tile_size, hidden, grad, other_grad, by_cell,
          call.grad_weights ? padded_grads : nullptr,
          call.grad_inputs ? call.grad_inputs + (image * nets.num_tiles + i) * nets.channels * TILE : nullptr);
    }
    if (!call.grad_weights) continue;
    const float* from = padded_grads;
    float* to = call.partial_weights + (range * CHUNK + net - call.first_net) * num_weights;
    for (int64_t layer = 0; layer < nets.depth; ++layer) {
      const int64_t n_in = nets.inputs_of(layer), n_out = nets.outputs_of(layer);
      for (int64_t out = 0; out < n_out; ++out, from += padded(n_in), to += n_in) memcpy(to, from, n_in * sizeof(float));
      memcpy(to, from, n_out * sizeof(float));
      from += padded(n_out);
      to += n_out;
    }
  }
}

// Take over the peak of a later range.
void merge(Peak& peak, const Peak& later) {
  if (peak.highest != peak.highest || later.highest == -INFINITY) return;
  if (later.highest != later.highest) {
    peak = later;
  } else if (later.highest > peak.highest) {
    peak = {later.highest, peak.sum * expf(peak.highest - later.highest) + later.sum, later.cell};
  } else {
    peak.sum += later.sum * expf(later.highest - peak.highest);
  }
}

}  // namespace

extern "C" {

struct Sizes {
  int64_t num_nets, num_cells, channels, width, depth, num_keypoints, threads;
};

int64_t kp_net_tile() { return TILE; }

// Features (C, H, W) of an image, then the coordinates x and y of its cells in strides from the middle of the map, by
// tiles: (T, C + 2, TILE), zero beyond the map.
void kp_net_pack(const float* features, int64_t channels, int64_t height, int64_t width, int64_t threads,
                 float* tiles) {
  const int64_t num_cells = height * width, num_tiles = (num_cells + TILE - 1) / TILE;
#pragma omp parallel for num_threads(threads)
  for (int64_t tile = 0; tile < num_tiles; ++tile) {
    const int64_t first = tile * TILE, count = num_cells - first < TILE ? num_cells - first : TILE;
    float* to = tiles + tile * (channels + 2) * TILE;
    if (count < TILE) memset(to, 0, (channels + 2) * TILE * sizeof(float));
    for (int64_t channel = 0; channel < channels; ++channel, to += TILE)
      memcpy(to, features + channel * num_cells + first, count * sizeof(float));
    int64_t x = first % width, y = first / width;
    for (int64_t i = 0; i < count; ++i) {
      to[i] = x - (width - 1) * 0.5f;
      to[TILE + i] = y - (height - 1) * 0.5f;
      if (++x == width) x = 0, ++y;
    }
  }
}

static Nets make_nets(const float* inputs, const float* weights, const int64_t* image_index, const Sizes& sizes) {
  return {inputs,         weights,     image_index, sizes.num_nets, sizes.num_cells, (sizes.num_cells + TILE - 1) / TILE,
          sizes.channels, sizes.width, sizes.depth, sizes.num_keypoints};
}

// Peaks (highest, sums and cells: (N, K)), with targets also the logits at them; or heatmaps. Returns 0, or 1 if there
// is not enough memory.
int kp_net_forward(const float* inputs, const float* weights, const int64_t* image_index, const Sizes* sizes,
                   const int64_t* targets, float* highest, float* sums, int64_t* cells, float* at_target,
                   float* heatmaps) {
  const Nets nets = make_nets(inputs, weights, image_index, *sizes);
  const int64_t ranges = nets.num_ranges(), num_heatmaps = nets.num_nets * nets.num_keypoints;
  Peak* peaks = nullptr;
  if (!heatmaps) {
    peaks = static_cast<Peak*>(malloc(ranges * num_heatmaps * sizeof(Peak)));
    if (!peaks) return 1;
  }
  const Forward call = {nets, targets, peaks, at_target, heatmaps};
  int failed = 0;
#pragma omp parallel num_threads(sizes->threads) reduction(| : failed)
  {
    float* scratch = allocate(nets.num_keypoints * GROUP * TILE + 2 * nets.width * TILE);
    failed = !scratch;
    // Consecutive items share a range, whose features stay in the cache.
#pragma omp for schedule(dynamic)
    for (int64_t item = 0; item < ranges * nets.num_nets; ++item)
      if (scratch) forward_range(call, item / nets.num_nets, item % nets.num_nets, scratch);
    free(scratch);
  }
  for (int64_t i = 0; peaks && i < num_heatmaps; ++i) {
    for (int64_t range = 1; range < ranges; ++range) merge(peaks[i], peaks[range * num_heatmaps + i]);
    highest[i] = peaks[i].highest;
    sums[i] = peaks[i].sum;
    cells[i] = peaks[i].cell;
  }
  free(peaks);
  return failed;
}

// Gradients of the inputs' features, added to grad_inputs, and of the weights; either may be null. Returns as above.
int kp_net_backward(const float* inputs, const float* weights, const int64_t* image_index, const Sizes* sizes,
                    const float* grad, const int64_t* targets, const float* log_sums, float* grad_inputs,
                    float* grad_weights) {
  const Nets nets = make_nets(inputs, weights, image_index, *sizes);
  const int64_t ranges = nets.num_ranges(), num_weights = nets.num_weights();
  float* partial_weights = nullptr;
  if (grad_weights) {
    partial_weights = allocate(ranges * CHUNK * num_weights);
    if (!partial_weights) return 1;
  }
  int failed = 0;
#pragma omp parallel num_threads(sizes->threads) reduction(| : failed)
  {
    float* scratch = allocate(backward_scratch(nets));
    failed = !scratch;
    if (scratch) memset(scratch, 0, backward_scratch(nets) * sizeof(float));  // the padding of transposed tiles
    for (int64_t first = 0; first < nets.num_nets; first += CHUNK) {
      const int64_t end = first + CHUNK < nets.num_nets ? first + CHUNK : nets.num_nets;
      const Backward call = {nets,        grad,         targets,         log_sums, grad_inputs,
                             grad_weights, partial_weights, first, end};
#pragma omp for schedule(dynamic)
      for (int64_t range = 0; range < ranges; ++range)
        if (scratch) backward_range(call, range, scratch);
      if (!grad_weights) continue;
#pragma omp for
      for (int64_t net = first; net < end; ++net)
        for (int64_t range = 0; range < ranges; ++range) {
          const float* from = partial_weights + (range * CHUNK + net - first) * num_weights;
          float* to = grad_weights + net * num_weights;
          for (int64_t i = 0; i < num_weights; ++i) to[i] = range == 0 ? from[i] : to[i] + from[i];
        }
    }
    free(scratch);
  }
  free(partial_weights);
  return failed;
}

}  // extern "C"
