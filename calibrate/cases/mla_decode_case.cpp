// Absorbed MLA decode: latents in bf16, in bf16 with V stored a second time, and in FlashMLA's FP8.
#include "calibrate/cases/case.h"
#include "kernels/common/tolerance.h"
#include "kernels/mla_decode/mla_decode.h"
#include "kernels/mla_decode/mla_fp8_row.h"
#include "model/ops/mla_decode.h"

namespace kvfathom::bench {
namespace {

using kernels::KvFormat;
using kernels::MlaDecodeParams;
using kernels::MlaDecodePlan;

constexpr const char* kSeparateV = "bf16_separate_v";
constexpr const char* kFp8 = "fp8";

/// The shape without its buffers.
MlaDecodeParams params_of(const Request& request) {
  MlaDecodeParams p;
  p.n_heads = request.shape.as_int("n_heads");
  p.kv_lora_rank = request.shape.as_int("kv_lora_rank");
  p.qk_rope_head_dim = request.shape.as_int("qk_rope_head_dim");
  p.softmax_scale = 0.05F;
  p.cache.format = request.format == kFp8 ? KvFormat::fp8_e4m3 : KvFormat::bf16;
  p.cache.n_sequences = request.shape.as_int("n_sequences");
  p.cache.n_kv_heads = 1;
  return p;
}
/// How the device's launch is cut; the CPU reads everything once and merges nothing in memory.
MlaDecodePlan plan_of(const Request& request) {
  if (request.place == Place::cpu) {
    return MlaDecodePlan{.n_passes = 1, .n_splits = 0};
  }
  return kernels::mla_decode_plan(
      params_of(request), request.shape.as_int("tokens"), kernels::device());
}

/// Random rows: E4M3 of moderate size, scales of about 1, bf16.
std::vector<std::uint16_t> random_rows(const Request& request, std::size_t n_rows, int set) {
  const MlaDecodeParams p = params_of(request);
  const auto seed = 20 + static_cast<std::uint64_t>(set);
  const std::size_t k_dim = p.kv_lora_rank + p.qk_rope_head_dim;
  if (request.format != kFp8) {
    return random_bf16(n_rows * k_dim, seed);
  }
  std::vector<std::uint16_t> rows(n_rows * kernels::kMlaFp8RowBytes / 2);
  const std::vector<float> values = random_floats(k_dim, seed);
  const std::vector<std::byte> row = kernels::encode_mla_fp8_row(values);
  std::vector<std::uint32_t> words(rows.size() / 2);
  fill_random(words, seed);
  for (std::size_t i = 0; i < n_rows; ++i) {
    auto* to = reinterpret_cast<std::byte*>(rows.data()) + i * row.size();
    std::memcpy(to, row.data(), row.size());
    const auto* noise = reinterpret_cast<const std::byte*>(words.data()) + i * row.size();
    for (int at = 0; at < kernels::kMlaFp8Latent; ++at) {
      to[at] = noise[at] & std::byte{0xbf};  // below 2: no NaN
    }
  }
  return rows;
}

class MlaDecodeRun : public PreparedRun {
 public:
  MlaDecodeRun(const Request& request, int n_sets)
      : request_(request),
        plan_(plan_of(request)),
        n_sequences_(request.shape.as_int("n_sequences")),
        n_rows_(static_cast<std::size_t>(n_sequences_) * request.shape.as_int("tokens")),
        host_q_(random_bf16(
            static_cast<std::size_t>(n_sequences_) * params_of(request).n_heads * k_dim(), 3)),
        host_lengths_(n_sequences_, request.shape.as_int("tokens")),
        q_(request.place, host_q_),
        lengths_(request.place, host_lengths_),
        out_(request.place, std::vector<float>(n_outputs())) {
    for (int set = 0; set < n_sets; ++set) {
      k_.emplace_back(request.place, random_rows(request, n_rows_, set));
      if (request.format == kSeparateV) {
        v_.emplace_back(request.place, random_bf16(n_rows_ * rank(), 40 + set));
      }
    }
    if (request.place == Place::cuda) {
      scratch_ = kernels::DeviceArray<std::byte>(
          kernels::mla_decode_scratch_bytes(params_of(request), plan_.n_splits));
    }
  }

  void run(int set, Stream stream) override {
    request_.place == Place::cpu
        ? kernels::mla_decode_cpu(params(set), request_.n_threads)
        : kernels::mla_decode_launch(params(set), plan_, scratch_.data(), stream);
  }

  double worst_error() override {
    const std::vector<std::uint16_t> k = random_rows(request_, n_rows_, 0);
    const std::vector<std::uint16_t> v =
        v_.empty() ? std::vector<std::uint16_t>{} : random_bf16(n_rows_ * rank(), 40);
    const MlaDecodeParams p =
        with_buffers(host_q_.data(), k.data(), v.data(), host_lengths_.data(), nullptr);
    std::vector<double> want(n_outputs());
    std::vector<double> magnitude(n_outputs());
    std::vector<double> bound(n_outputs());
    std::vector<double> score(n_outputs() / rank());
    mla_decode_reference(p, {want.data(), magnitude.data(), score.data()});
    const bool rounds_weights =
        plan_.kernel == kernels::MlaDecodeKernel::tensor_cores && request_.place == Place::cuda;
    for (std::size_t i = 0; i < bound.size(); ++i) {
      bound[i] = kernels::attention_bound(
          want[i],
          {.weighted_v = magnitude[i], .score = score[i / rank()]},
          host_lengths_[0],
          static_cast<int>(k_dim()),
          {.probabilities = rounds_weights ? kernels::kUnitRoundoffBf16 : 0.0});
    }
    return worst_ratio(out_.to_host(), want, bound);
  }

 private:
  [[nodiscard]] std::size_t rank() const { return params_of(request_).kv_lora_rank; }
  [[nodiscard]] std::size_t k_dim() const { return rank() + params_of(request_).qk_rope_head_dim; }
  [[nodiscard]] std::size_t n_outputs() const {
    return static_cast<std::size_t>(n_sequences_) * params_of(request_).n_heads * rank();
  }
  [[nodiscard]] MlaDecodeParams params(int set) const {
    return with_buffers(q_.data(),
                        k_[set].data(),
                        v_.empty() ? nullptr : v_[set].data(),
                        lengths_.data(),
                        out_.data());
  }
  [[nodiscard]] MlaDecodeParams with_buffers(const std::uint16_t* q,
                                             const std::uint16_t* k,
                                             const std::uint16_t* v,
                                             const std::int32_t* lengths,
                                             float* out) const {
    MlaDecodeParams p = params_of(request_);
    const std::int64_t row_bytes =
        request_.format == kFp8 ? kernels::kMlaFp8RowBytes : 2 * static_cast<std::int64_t>(k_dim());
    const std::int64_t tokens = request_.shape["tokens"];
    p.q = q;
    p.cache.k = {.data = reinterpret_cast<const std::byte*>(k),
                 .page_stride_bytes = tokens * row_bytes,
                 .token_stride_bytes = row_bytes};
    if (request_.format == kSeparateV) {
      const auto v_bytes = 2 * static_cast<std::int64_t>(rank());
      p.cache.v = {.data = reinterpret_cast<const std::byte*>(v),
                   .page_stride_bytes = tokens * v_bytes,
                   .token_stride_bytes = v_bytes};
    }
    p.cache.lengths = lengths;
    p.out = out;
    return p;
  }

  Request request_;
  MlaDecodePlan plan_;
  int n_sequences_;
  std::size_t n_rows_;
  std::vector<std::uint16_t> host_q_;
  std::vector<std::int32_t> host_lengths_;
  Array<std::uint16_t> q_;
  Array<std::int32_t> lengths_;
  Array<float> out_;
  std::vector<Array<std::uint16_t>> k_, v_;
  kernels::DeviceArray<std::byte> scratch_;
};

Case make_case(const Request& request) {
  const MlaDecodePlan plan = plan_of(request);
  const Shape& shape = request.shape;
  const MlaDecodeShape mla{.n_sequences = shape["n_sequences"],
                           .n_cached_tokens = shape["n_sequences"] * shape["tokens"],
                           .n_heads = shape.as_int("n_heads"),
                           .kv_lora_rank = shape.as_int("kv_lora_rank"),
                           .qk_rope_head_dim = shape.as_int("qk_rope_head_dim"),
                           .fp8_latent = request.format == kFp8,
                           .separate_v = request.format == kSeparateV,
                           .n_passes = plan.n_passes,
                           .n_splits = plan.n_splits};
  return Case{
      .cost = mla_decode_cost(mla),
      .bytes_per_set = static_cast<double>(mla.n_cached_tokens) * mla_token_bytes(mla).value(),
      .prepare = prepare_with<MlaDecodeRun>(request)};
}

Shape glm_flash(std::int64_t n_sequences, std::int64_t tokens, std::int64_t n_heads) {
  return {{"n_sequences", n_sequences},
          {"tokens", tokens},
          {"n_heads", n_heads},
          {"kv_lora_rank", 512},
          {"qk_rope_head_dim", 64}};
}

const Registration kMlaDecode(
    {.name = "mla_decode",
     .formats = {"bf16", kSeparateV, kFp8},
     .tiny = glm_flash(2, 70, 3),
     .shapes = {glm_flash(1, 32768, 20), glm_flash(16, 4096, 16), glm_flash(8, 4096, 128)},
     .make_case = make_case});

}  // namespace
}  // namespace kvfathom::bench
