#include "model/weights/quantise_rules.h"

#include <algorithm>
#include <initializer_list>

#include "model/error.h"

namespace kvfathom {
namespace {

/// A layer's place in the network, as the rules count it.
struct Place {
  std::int64_t layer = 0;
  std::int64_t n = 0;
  /// In the first 1/part of the layers.
  [[nodiscard]] bool in_first(std::int64_t part) const { return layer < n / part; }
  /// The first and the last eighth, and every third layer between: those that matter most.
  [[nodiscard]] bool deserves_more_bits() const {
    return layer < n / 8 || layer >= 7 * n / 8 || (layer - n / 8) % 3 == 2;
  }
  [[nodiscard]] bool in_middle() const { return layer >= n / 8 && layer < 7 * n / 8; }
};

bool one_of(FileType type, std::initializer_list<FileType> types) {
  return std::ranges::find(types, type) != types.end();
}

bool is_falcon(const QuantiseFacts& facts) {
  return facts.architecture == "falcon";
}

/// File types of about 1 to 2.7 bits: they have rules of their own.
bool is_low_bit(FileType type) {
  return one_of(type,
                {FileType::iq1_s,
                 FileType::iq1_m,
                 FileType::iq2_xxs,
                 FileType::iq2_xs,
                 FileType::iq2_s,
                 FileType::iq2_m});
}

/// Mixtures of experts go by the block's number, dense models by how many came before.
Place feed_forward_place(const QuantiseFacts& facts, std::int64_t seen, std::int64_t block) {
  return {facts.n_experts > 1 ? block : seen, facts.n_blocks};
}

DType output_dtype(const QuantiseFacts& facts, DType dtype, const Tensor& tensor) {
  if (facts.file_type == FileType::mxfp4_moe || is_falcon(facts) ||
      tensor.shape[0] % info(dtype).block_elements != 0) {
    return DType::q8_0;
  }
  if (is_low_bit(facts.file_type) || facts.file_type == FileType::iq3_xxs) {
    return DType::q5_k;
  }
  return dtype == DType::q8_0 ? dtype : DType::q6_k;
}

DType embedding_dtype(FileType type, DType dtype) {
  switch (type) {
    case FileType::iq1_s:
    case FileType::iq1_m:
    case FileType::iq2_xxs:
    case FileType::iq2_xs:
      return DType::q2_k;
    case FileType::iq2_s:
    case FileType::iq2_m:
    case FileType::iq3_xxs:
      return DType::iq3_s;
    case FileType::tq1_0:
    case FileType::tq2_0:
    case FileType::q2_0:
      return DType::q4_k;
    default:
      return dtype;
  }
}

DType expert_mxfp4_dtype(const QuantiseFacts& facts, TensorRole role, const Tensor& tensor) {
  const bool feed_forward =
      role == TensorRole::ffn_up || role == TensorRole::ffn_gate || role == TensorRole::ffn_down;
  const bool stacked = tensor.shape[2] > 1;  // experts, and elsewhere MLA's per-head matrices
  return stacked && (facts.architecture != "bailingmoe3" || feed_forward) ? DType::mxfp4
                                                                          : DType::q8_0;
}

DType low_bit_dtype(const QuantiseFacts& facts,
                    QuantiseCounters& counters,
                    DType dtype,
                    TensorRole role) {
  const bool about_2_5_bits = one_of(facts.file_type, {FileType::iq2_s, FileType::iq2_m});
  const DType raised = about_2_5_bits ? DType::iq3_s : DType::q2_k;
  switch (role) {
    case TensorRole::attention_v:
      ++counters.attention_v;
      return facts.n_gqa >= 4 || facts.n_experts >= 4 ? DType::q4_k : raised;
    case TensorRole::attention_k:
      return facts.n_experts == 8 ? DType::q4_k : dtype;
    case TensorRole::ffn_down: {
      const Place place{counters.ffn_down++, facts.n_blocks};
      return place.in_first(8) ? raised : dtype;
    }
    case TensorRole::attention_output:
      if (facts.n_experts == 8) {
        return DType::q5_k;
      }
      if (one_of(facts.file_type, {FileType::iq1_s, FileType::iq1_m})) {
        return DType::iq2_xxs;
      }
      return about_2_5_bits ? DType::iq3_s : dtype;
    default:
      return dtype;
  }
}

/// What V gets by file type, before the corrections for the 70B and 8-expert models.
DType attention_v_by_file_type(const QuantiseFacts& facts, DType dtype, const Place& place) {
  const bool grouped = facts.n_gqa >= 4;
  switch (facts.file_type) {
    case FileType::q2_k:
      return grouped ? DType::q4_k : DType::q3_k;
    case FileType::q2_k_s:
    case FileType::iq3_xs:
    case FileType::iq3_s:
      return grouped ? DType::q4_k : dtype;
    case FileType::iq3_xxs:
      return grouped ? DType::q4_k : facts.imatrix ? DType::iq3_xxs : DType::iq3_s;
    case FileType::iq3_m:
      return DType::q4_k;
    case FileType::q3_k_m:
      return place.layer < 2 ? DType::q5_k : DType::q4_k;
    case FileType::q3_k_l:
      return DType::q5_k;
    case FileType::iq4_nl:
    case FileType::iq4_xs:
      return grouped ? DType::q5_k : dtype;
    case FileType::q4_k_m:
    case FileType::q5_k_m:
      return place.deserves_more_bits() ? DType::q6_k : dtype;
    case FileType::q4_k_s:
      return place.layer < 4 ? DType::q5_k : dtype;
    default:
      return dtype;
  }
}

DType attention_v_dtype(const QuantiseFacts& facts, QuantiseCounters& counters, DType dtype) {
  const Place place{counters.attention_v++, facts.n_attention_v};
  const DType chosen = attention_v_by_file_type(facts, dtype, place);
  if (facts.n_experts == 8) {
    return DType::q8_0;
  }
  const bool low = chosen == DType::q3_k || chosen == DType::q4_k;
  return facts.is_70b && low ? DType::q5_k : chosen;
}

DType attention_qk_dtype(const QuantiseFacts& facts, DType dtype, TensorRole role) {
  if (role == TensorRole::attention_k && facts.n_experts == 8) {
    return DType::q8_0;
  }
  if (facts.file_type == FileType::iq3_xs) {
    return DType::iq3_xxs;
  }
  return facts.file_type == FileType::iq3_xxs ? DType::iq2_s : dtype;
}

DType ffn_down_dtype(const QuantiseFacts& facts, DType dtype, const Place& place) {
  const bool falcon = is_falcon(facts);
  switch (facts.file_type) {
    case FileType::q2_k:
      return DType::q3_k;
    case FileType::q2_k_s:
      return place.in_first(8) ? DType::q4_k : dtype;
    case FileType::iq3_xxs:
      return facts.imatrix ? dtype : place.in_first(8) ? DType::q4_k : DType::q3_k;
    case FileType::q3_k_m:
      if (place.in_first(16)) {
        return DType::q5_k;
      }
      return !falcon || place.deserves_more_bits() ? DType::q4_k : DType::q3_k;
    case FileType::iq3_m:
      return place.in_first(8) || (facts.n_experts == 8 && place.deserves_more_bits()) ? DType::q4_k
                                                                                       : dtype;
    case FileType::q3_k_l:
      return falcon ? DType::q4_k : DType::q5_k;
    case FileType::q4_k_m:
      if (falcon && !place.in_first(16)) {
        return place.deserves_more_bits() ? DType::q5_k : DType::q4_k;
      }
      return place.deserves_more_bits() ? DType::q6_k : dtype;
    case FileType::iq4_nl:
    case FileType::iq4_xs:
      return place.in_first(8) && !facts.imatrix ? DType::q5_k : dtype;
    case FileType::q5_k_m:
      return place.deserves_more_bits() ? DType::q6_k : dtype;
    case FileType::q4_k_s:
      return !falcon && place.in_first(8) ? DType::q5_k : dtype;
    case FileType::q4_0:
      return facts.imatrix && place.in_first(8) ? DType::q4_1 : dtype;
    case FileType::q5_0:
      return facts.imatrix && place.in_first(8) ? DType::q5_1 : dtype;
    default:
      return dtype;
  }
}

DType attention_output_dtype(const QuantiseFacts& facts, DType dtype) {
  if (is_falcon(facts)) {
    return facts.file_type == FileType::q3_k_l ? DType::q4_k : dtype;
  }
  if (facts.n_experts == 8) {
    return one_of(facts.file_type,
                  {FileType::q2_k,
                   FileType::q3_k_s,
                   FileType::q3_k_m,
                   FileType::q4_k_s,
                   FileType::q4_k_m,
                   FileType::iq3_xxs,
                   FileType::iq3_xs,
                   FileType::iq3_s,
                   FileType::iq3_m,
                   FileType::iq4_nl,
                   FileType::iq4_xs})
               ? DType::q5_k
               : dtype;
  }
  switch (facts.file_type) {
    case FileType::q2_k:
      return DType::q3_k;
    case FileType::iq3_xxs:
      return DType::iq3_s;
    case FileType::q3_k_m:
    case FileType::iq3_m:
      return DType::q4_k;
    case FileType::q3_k_l:
      return DType::q5_k;
    default:
      return dtype;
  }
}

}  // namespace

TensorRole role_of(std::string_view name) {
  if (name == "output.weight") {
    return TensorRole::output;
  }
  if (name == "token_embd.weight" || name == "per_layer_token_embd.weight") {
    return TensorRole::token_embedding;
  }
  struct Row {
    std::string_view part;
    TensorRole role;
  };
  static constexpr Row kRows[]{
      {"attn_qkv.weight", TensorRole::attention_v},
      {"attn_kv_b.weight", TensorRole::attention_v},
      {"attn_v.weight", TensorRole::attention_v},
      {"attn_k.weight", TensorRole::attention_k},
      {"attn_q.weight", TensorRole::attention_q},
      {"attn_output.weight", TensorRole::attention_output},
      {"ffn_up", TensorRole::ffn_up},
      {"ffn_gate", TensorRole::ffn_gate},
      {"ffn_down", TensorRole::ffn_down},
  };
  for (const Row& row : kRows) {
    if (name.find(row.part) != std::string_view::npos) {
      return row.role;
    }
  }
  return TensorRole::other;
}

DType chosen_dtype(const QuantiseFacts& facts,
                   QuantiseCounters& counters,
                   DType default_dtype,
                   const Tensor& tensor,
                   std::int64_t block) {
  const TensorRole role = role_of(tensor.name);
  // an embedding that is the output head too is stored as the head would be
  if (role == TensorRole::output ||
      (facts.tied_embeddings && role == TensorRole::token_embedding)) {
    return output_dtype(facts, default_dtype, tensor);
  }
  if (facts.file_type == FileType::mxfp4_moe) {
    return expert_mxfp4_dtype(facts, role, tensor);
  }
  if (role == TensorRole::token_embedding) {
    return embedding_dtype(facts.file_type, default_dtype);
  }
  if (is_low_bit(facts.file_type)) {
    return low_bit_dtype(facts, counters, default_dtype, role);
  }
  switch (role) {
    case TensorRole::attention_v:
      return attention_v_dtype(facts, counters, default_dtype);
    case TensorRole::attention_k:
    case TensorRole::attention_q:
      return attention_qk_dtype(facts, default_dtype, role);
    case TensorRole::attention_output:
      return attention_output_dtype(facts, default_dtype);
    case TensorRole::ffn_down:
      return ffn_down_dtype(
          facts, default_dtype, feed_forward_place(facts, counters.ffn_down++, block));
    case TensorRole::ffn_up:
    case TensorRole::ffn_gate: {
      std::int64_t& seen = role == TensorRole::ffn_up ? counters.ffn_up : counters.ffn_gate;
      const Place place = feed_forward_place(facts, seen++, block);
      return facts.file_type == FileType::iq3_xs && place.in_middle() ? DType::iq3_xxs
                                                                      : default_dtype;
    }
    default:
      return default_dtype;
  }
}

DType fallback(const Tensor& tensor, DType wanted) {
  const auto holds_whole_blocks = [&](DType dtype) {
    return tensor.shape[0] % info(dtype).block_elements == 0;
  };
  if (holds_whole_blocks(wanted)) {
    return wanted;
  }
  DType nearest{};
  switch (wanted) {
    case DType::iq1_s:
    case DType::iq1_m:
    case DType::iq2_xxs:
    case DType::iq2_xs:
    case DType::iq2_s:
    case DType::iq3_xxs:
    case DType::iq3_s:
    case DType::iq4_xs:
      nearest = DType::iq4_nl;
      break;
    case DType::q2_0:
    case DType::q2_k:
    case DType::q3_k:
    case DType::tq1_0:
    case DType::tq2_0:
      nearest = DType::q4_0;
      break;
    case DType::q4_k:
      nearest = DType::q5_0;
      break;
    case DType::q5_k:
      nearest = DType::q5_1;
      break;
    case DType::q6_k:
      nearest = DType::q8_0;
      break;
    default:
      throw Unsupported(tensor.name,
                        "rows of " + std::to_string(tensor.shape[0]) +
                            " elements cannot be stored as " + std::string(name(wanted)),
                        "multiples of " + std::to_string(info(wanted).block_elements) +
                            " (llama-quantize has no other type for it)");
  }
  return holds_whole_blocks(nearest) ? nearest : DType::f16;
}

}  // namespace kvfathom
