// Weights times activations: out = x W^T, from one token (where the weights' bytes are all that
// counts) to thousands (where the multiplications are).
#pragma once

#include <cstdint>
#include <string>

#include "kernels/common/device.h"
#include "kernels/common/weight_format.h"

namespace kvfathom::kernels {

/// Shapes and buffers of one call; buffers live where the callee runs. Activations are Bf16 for
/// bf16 weights, F16 for any other; rows without gaps.
struct GemmParams {
  int m = 0;                         ///< rows of x: tokens
  WeightMatrix weights;              ///< [n, k]
  const std::uint16_t* x = nullptr;  ///< [m, k]
  std::uint16_t* out = nullptr;      ///< [m, n]
};

/// Where the reference puts its results, each [m, n].
struct GemmReference {
  double* out = nullptr;
  double* magnitude = nullptr;  ///< sum over k of |x w|
};

/// The definition, in double, on host buffers. `params.out` is not touched.
void gemm_reference(const GemmParams& params, const GemmReference& result);

/// The same on the CPU: m <= 8 reads the weights as stored, more go through OpenBLAS. n_threads =
/// 0: all. Throws UnsupportedShape.
void gemm_cpu(const GemmParams& params, int n_threads = 0);

/// Which implementation a launch uses.
enum class GemmKernel : std::uint8_t {
  automatic,        ///< gemv up to 8 rows; above, the library where it can, else tiles
  library,          ///< cuBLASLt, opened at run time; 16-bit weights only
  tiles,            ///< our tile product; CUDA cores for bf16 below sm_80
  gemv,             ///< m <= 8, on tensor cores; quantised k in multiples of 256
  gemv_cuda_cores,  ///< m <= 8; the fallback, and the second, independent implementation
};

/// The implementation that `automatic` stands for on this device.
[[nodiscard]] GemmKernel gemm_kernel(const GemmParams& params, const DeviceInfo& device);

/// The same on the device. Throws NoDevice, DeviceError, or UnsupportedShape naming what is built.
/// The library chooses and allocates at the first call of a shape: make that one before capturing a
/// graph.
void gemm_launch(const GemmParams& params,
                 Stream stream,
                 GemmKernel kernel = GemmKernel::automatic);

/// Why cuBLASLt cannot be used; empty where it can.
[[nodiscard]] std::string gemm_library_missing();
/// gemm_launch by cuBLASLt.
void gemm_library_launch(const GemmParams& params, Stream stream);

}  // namespace kvfathom::kernels
