#include <string>

#include "kernels/common/error.h"
#include "kernels/state_update/state_update.h"

namespace kvfathom::kernels {
namespace {

void require(bool holds, const std::string& otherwise) {
  if (!holds) {
    throw UnsupportedShape(otherwise);
  }
}

}  // namespace

void check_delta_net(const DeltaNetParams& params) {
  require(params.n_key_heads > 0 && params.n_value_heads % params.n_key_heads == 0,
          "delta_net: " + std::to_string(params.n_value_heads) +
              " value heads are no multiple of " + std::to_string(params.n_key_heads) +
              " key heads");
  require(
      params.key_dim > 0 && params.value_dim > 0 && params.value_dim % 32 == 0,
      "delta_net: value_dim = " + std::to_string(params.value_dim) + " is not a multiple of 32");
}

void check_mamba2(const Mamba2Params& params) {
  require(params.n_groups > 0 && params.n_heads % params.n_groups == 0,
          "mamba2: " + std::to_string(params.n_heads) + " heads are no multiple of " +
              std::to_string(params.n_groups) + " groups");
  require(params.head_dim % 16 == 0 && params.state_dim % 32 == 0,
          "mamba2: head_dim = " + std::to_string(params.head_dim) + " and state_dim = " +
              std::to_string(params.state_dim) + " are no multiples of 16 and 32");
}

void check_conv_state(const ConvStateParams& params) {
  require(params.width >= 2 && params.width <= 8,
          "conv_state: width = " + std::to_string(params.width) + "; 2 to 8 are built");
}

}  // namespace kvfathom::kernels
