#include "model/architecture/parameters.h"

#include <string_view>
#include <variant>

#include "model/architecture/tensor_inventory.h"

namespace kvfathom {
namespace {

/// Whether a tensor stacks one matrix per expert (GGUF's suffix for them).
bool is_of_experts(const Tensor& tensor) {
  return tensor.name.find("_exps.") != std::string::npos;
}

/// Parameters that a tensor holds: of 4-bit integers eight to a word (AWQ, GPTQ), none in what
/// unpacks them.
std::int64_t parameters_of(const Tensor& tensor) {
  constexpr std::int64_t kValuesPerWord = 8;
  const std::string_view name = tensor.name;
  if (name.ends_with(".qweight")) {
    return kValuesPerWord * n_elements(tensor);
  }
  const bool unpacks =
      name.ends_with(".qzeros") || name.ends_with(".g_idx") || name.ends_with(".scales");
  return unpacks ? 0 : n_elements(tensor);
}

/// The mixture that most layers have; experts are routed alike wherever they stand.
const MixtureOfExperts* mixture_of(const ModelSpec& model) {
  for (const LayerSpec& layer : model.layers) {
    if (const auto* moe = std::get_if<MixtureOfExperts>(&layer.feed_forward); moe != nullptr) {
      return moe;
    }
  }
  return nullptr;
}

}  // namespace

ParameterCount count_parameters(const ModelSpec& model) {
  ParameterCount count;
  const MixtureOfExperts* const moe = mixture_of(model);
  const std::vector<Tensor> listed =
      model.tensors.empty() ? tensor_inventory(model) : std::vector<Tensor>{};
  for (const Tensor& tensor : model.tensors.empty() ? listed : model.tensors) {
    const std::int64_t n = parameters_of(tensor);
    count.total += n;
    count.active +=
        moe != nullptr && is_of_experts(tensor) ? n / moe->n_experts * moe->n_experts_per_token : n;
    if (tensor.name == "token_embd.weight" || tensor.name == "output.weight") {
      count.embedding += n;
    }
  }
  for (const ExtraPart& part : model.extras) {
    (part.kind == "mtp"      ? count.mtp
     : part.kind == "vision" ? count.vision
     : part.kind == "audio"  ? count.audio
                             : count.other_extras) += part.n_parameters;
  }
  return count;
}

std::int64_t layer_parameters(const ModelSpec& model, const LayerSpec& layer) {
  ModelSpec one = model;
  one.tensors.clear();
  one.layers = {layer};
  const std::int64_t with = count_parameters(one).total;
  one.layers.clear();
  return with - count_parameters(one).total;
}

}  // namespace kvfathom
