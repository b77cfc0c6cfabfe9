#include <string>

#include "kernels/common/element_device.h"
#include "kernels/common/error.h"
#include "kernels/elementwise/elementwise.h"

namespace kvfathom::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / simt::kWarpSize;

/// Sum over the block of up to 8 warps, the same in every thread. `shared` holds kWarps floats.
SIMT_DEVICE float block_sum(float* shared, float value) {
  const int warp = static_cast<int>(simt::thread_idx().x) / simt::kWarpSize;
  value = simt::warp_sum(value);
  if (simt::lane_id() == 0) {
    shared[warp] = value;
  }
  simt::syncblock();
  float total = 0.0F;
  SIMT_UNROLL for (int i = 0; i < kWarps; ++i) {
    total += shared[i];
  }
  return total;
}

/// One row per block. A thread reads again what it wrote itself, so no barrier guards the residual.
SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kThreads) rms_norm_kernel(const RmsNormParams p) {
  const std::int64_t first = static_cast<std::int64_t>(simt::block_idx().x) * p.n_columns;
  const int stride = 8 * kThreads;
  float squares = 0.0F;
  for (int i = 8 * static_cast<int>(simt::thread_idx().x); i < p.n_columns; i += stride) {
    float y[8];
    load8(p.element, p.x, first + i, y);
    if (p.residual != nullptr) {
      float residual[8];
      load8(p.element, p.residual, first + i, residual);
      SIMT_UNROLL for (int j = 0; j < 8; ++j) {
        y[j] = rounded_to(p.element, y[j] + residual[j]);
      }
      store8(p.element, p.residual, first + i, y);
    }
    SIMT_UNROLL for (int j = 0; j < 8; ++j) {
      squares += y[j] * y[j];
    }
  }
  const float mean =
      block_sum(simt::shared_memory<float>(), squares) / static_cast<float>(p.n_columns);
  const float inverse = simt::rsqrt_fast(mean + p.epsilon);
  const void* from = p.residual != nullptr ? p.residual : p.x;
  for (int i = 8 * static_cast<int>(simt::thread_idx().x); i < p.n_columns; i += stride) {
    float y[8];
    float weight[8];
    load8(p.element, from, first + i, y);
    load8(p.element, p.weight, i, weight);
    SIMT_UNROLL for (int j = 0; j < 8; ++j) {
      y[j] = y[j] * inverse * (p.weight_offset + weight[j]);
    }
    store8(p.element, p.out, first + i, y);
  }
}

SIMT_DEVICE std::int64_t global_thread() {
  return static_cast<std::int64_t>(simt::block_idx().x) * kThreads + simt::thread_idx().x;
}

SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kThreads) add_kernel(const AddParams p) {
  const std::int64_t i = 8 * global_thread();
  if (i >= p.n) {
    return;
  }
  float a[8];
  float b[8];
  load8(p.element, p.a, i, a);
  load8(p.element, p.b, i, b);
  SIMT_UNROLL for (int j = 0; j < 8; ++j) {
    a[j] += b[j];
  }
  store8(p.element, p.out, i, a);
}

SIMT_KERNEL void SIMT_LAUNCH_BOUNDS(kThreads)
    gated_activation_kernel(const GatedActivationParams p) {
  const std::int64_t to = 8 * global_thread();
  if (to >= p.n_rows * p.n_columns) {
    return;
  }
  const std::int64_t from = to / p.n_columns * p.input_stride + to % p.n_columns;
  float gate[8];
  float up[8] = {1.0F, 1.0F, 1.0F, 1.0F, 1.0F, 1.0F, 1.0F, 1.0F};
  load8(p.element, p.gate, from, gate);
  if (p.up != nullptr) {
    load8(p.element, p.up, from, up);
  }
  SIMT_UNROLL for (int j = 0; j < 8; ++j) {
    gate[j] = activate(p.activation, gate[j], [](float x) { return simt::exp2_fast(x); }) * up[j];
  }
  store8(p.element, p.out, to, gate);
}

unsigned blocks_for(std::int64_t n_threads) {
  return static_cast<unsigned>((n_threads + kThreads - 1) / kThreads);
}

void require_eights(std::int64_t n, const char* what) {
  if (n <= 0 || n % 8 != 0) {
    throw UnsupportedShape(std::string(what) + " = " + std::to_string(n) + " is no multiple of 8");
  }
}

}  // namespace

void rms_norm_launch(const RmsNormParams& params, Stream stream) {
  require_eights(params.n_columns, "rms_norm: n_columns");
  simt::launch(rms_norm_kernel,
               static_cast<unsigned>(params.n_rows),
               kThreads,
               kWarps * sizeof(float),
               stream,
               params);
}

void add_launch(const AddParams& params, Stream stream) {
  require_eights(params.n, "add: n");
  simt::launch(add_kernel, blocks_for(params.n / 8), kThreads, 0, stream, params);
}

void gated_activation_launch(const GatedActivationParams& params, Stream stream) {
  require_eights(params.n_columns, "gated_activation: n_columns");
  require_eights(params.input_stride, "gated_activation: input_stride");
  simt::launch(gated_activation_kernel,
               blocks_for(params.n_rows * params.n_columns / 8),
               kThreads,
               0,
               stream,
               params);
}

}  // namespace kvfathom::kernels
