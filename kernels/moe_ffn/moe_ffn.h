// A mixture-of-experts feed-forward layer for 1 to 256 tokens: router, choice of experts, gated
// experts over the tokens that chose them, and the weighted sum of their answers.
#pragma once

#include <cstdint>

#include "kernels/common/activation.h"
#include "kernels/common/device.h"
#include "kernels/common/weight_format.h"

namespace kvfathom::kernels {

/// How router logits become scores: over all experts, or each by itself (DeepSeek-V3).
enum class RouterScore : std::uint8_t { softmax, sigmoid };

inline constexpr int kMostChosenExperts = 16;
inline constexpr int kMostExperts = 512;
inline constexpr int kMostMoeTokens = 1024;

/// Shapes and buffers of one call; buffers live where the callee runs. Activations, and the
/// router's weights, are Bf16 for bf16 experts and F16 for any other.
struct MoeFfnParams {
  int n_tokens = 0;
  int hidden_size = 0;
  int intermediate_size = 0;
  int n_experts = 0;
  int n_chosen = 0;  ///< experts per token
  RouterScore score = RouterScore::softmax;
  bool normalise = true;        ///< the chosen scores are divided by their sum
  float routed_scaling = 1.0F;  ///< and all multiplied by this
  Activation activation = Activation::silu;
  WeightFormat format = WeightFormat::bf16;  ///< of the experts

  const std::uint16_t* x = nullptr;       ///< [n_tokens, hidden_size]
  const std::uint16_t* router = nullptr;  ///< [n_experts, hidden_size]
  /// [n_experts] added to the scores for the choice only (DeepSeek-V3); null: none.
  const float* choice_bias = nullptr;
  const std::byte* gate_up =
      nullptr;                      ///< [n_experts, 2 intermediate_size, hidden_size], gate first
  const std::byte* down = nullptr;  ///< [n_experts, hidden_size, intermediate_size]
  std::uint16_t* out = nullptr;     ///< [n_tokens, hidden_size]
};
/// Throws UnsupportedShape, saying what is wrong.
void check_moe_ffn(const MoeFfnParams& params);

/// Where the reference puts its results. The magnitudes are for the bounds: each [n_tokens,
/// hidden_size], in the units of `out`.
struct MoeFfnReference {
  std::int32_t* experts = nullptr;  ///< [n_tokens, n_chosen], by falling score
  double* weights = nullptr;        ///< [n_tokens, n_chosen]
  double* out = nullptr;            ///< [n_tokens, hidden_size]
  double* magnitude = nullptr;      ///< sum over experts and k of weight |down h|
  /// What the magnitudes of the sums of gate and up make of it, through the activation's slope.
  double* inner_magnitude = nullptr;
  double* router_magnitude = nullptr;  ///< [n_tokens] largest sum over k of |x router|
};
/// The definition, in double, on host buffers; of equal scores the first expert wins.
void moe_ffn_reference(const MoeFfnParams& params, const MoeFfnReference& result);

/// The same on the CPU. n_threads = 0: all. Throws UnsupportedShape.
void moe_ffn_cpu(const MoeFfnParams& params, int n_threads = 0);

/// How the experts' weights meet their tokens.
enum class MoeKernel : std::uint8_t {
  automatic,  ///< gemv while few tokens share an expert
  gemv,       ///< 8 tokens at a time, weights streamed as stored; sizes as gemm's gemv
  tiles,      ///< 32 tokens at a time, quantised weights decoded to f16
};
[[nodiscard]] MoeKernel moe_kernel(const MoeFfnParams& params, const DeviceInfo& device);

/// Bytes of scratch memory of a launch.
[[nodiscard]] std::int64_t moe_ffn_scratch_bytes(const MoeFfnParams& params);
/// The same on the device. Throws NoDevice, DeviceError or UnsupportedShape.
void moe_ffn_launch(const MoeFfnParams& params,
                    void* scratch,
                    Stream stream = nullptr,
                    MoeKernel kernel = MoeKernel::automatic);

}  // namespace kvfathom::kernels
