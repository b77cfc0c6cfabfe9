#include "model/latency/generation.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "model/error.h"

namespace kvfathom {
namespace {

bool is_same(const Op& a, const Op& b) {
  return a.op_class == b.op_class && a.part == b.part && a.on_host == b.on_host &&
         a.n_times == b.n_times;
}

/// Chunks share their laws, so their errors add up as one.
void add_time(Estimate& sum, const Estimate& chunk) {
  sum.value += chunk.value;
  sum.low += chunk.low;
  sum.high += chunk.high;
  sum.provenance = worst(sum.provenance, chunk.provenance);
}

/// The operations of all chunks, like ones as one entry, and their times.
void add_details(const std::vector<Op>& ops,
                 const StepTime& chunk,
                 std::vector<Op>& all,
                 StepTime& sum) {
  std::vector<bool> taken(all.size(), false);  // equal operations of a chunk stay apart
  for (const OpTime& one : chunk.ops) {
    const Op& op = ops[one.op];
    std::size_t at = 0;
    while (at < all.size() && (at >= taken.size() || taken[at] || !is_same(all[at], op))) {
      ++at;
    }
    if (at == all.size()) {
      all.push_back(op);
      sum.ops.push_back({at, one.time, one.bound});
      continue;
    }
    taken[at] = true;
    all[at].cost = all[at].cost + op.cost;
    sum.ops[at].time += one.time;
    sum.ops[at].bound = one.bound;
  }
}

}  // namespace

Generation::Generation(const StepOps& steps, const LawSource& laws, std::int64_t chunk_tokens)
    : steps_(&steps),
      pricer_(laws),
      chunk_tokens_(chunk_tokens),
      pipeline_share_(laws.pipeline_share()) {}

StepTime Generation::prompt(std::int64_t n_tokens,
                            std::int64_t n_cached_tokens,
                            std::int64_t n_sequences,
                            bool details) {
  StepTime sum;
  sum.time_s.provenance = Provenance::exact;
  double longest_s = 0.0;
  std::vector<Op> all;
  for (std::int64_t done = 0; done < n_tokens; done += chunk_tokens_) {
    const StepShape step{.phase = Phase::prefill,
                         .n_sequences = n_sequences,
                         .n_new_tokens = std::min(chunk_tokens_, n_tokens - done),
                         .n_cached_tokens = n_cached_tokens + done,
                         .ends_prompt = done + chunk_tokens_ >= n_tokens};
    steps_->emit(step, ops_);
    const StepTime chunk = pricer_.price(ops_, steps_->n_layers(), details);
    add_time(sum.time_s, chunk.time_s);
    add_details(ops_, chunk, all, sum);
    if (chunk.time_s.value > longest_s) {
      longest_s = chunk.time_s.value;
      sum.bound = chunk.bound;
    }
  }
  ops_ = details ? std::move(all) : ops_;
  const std::int64_t n_chunks = (n_tokens + chunk_tokens_ - 1) / chunk_tokens_;
  const double sooner = pipeline_speed_up(
      steps_->settings().pipeline_parallel, static_cast<double>(n_chunks), pipeline_share_);
  sum.time_s.value /= sooner;
  sum.time_s.low /= sooner;
  sum.time_s.high /= sooner;
  return sum;
}

Estimate Generation::prompts(std::int64_t n_tokens, std::int64_t n_prompts) {
  const std::int64_t n_together =
      std::clamp<std::int64_t>(chunk_tokens_ / std::max<std::int64_t>(1, n_tokens), 1, n_prompts);
  const std::int64_t n_whole = n_prompts / n_together;
  const auto n_rounds = static_cast<double>(n_whole);
  Estimate time = prompt(n_tokens, 0, n_together).time_s;
  time.value *= n_rounds;
  time.low *= n_rounds;
  time.high *= n_rounds;
  if (const std::int64_t rest = n_prompts % n_together; rest > 0) {
    add_time(time, prompt(n_tokens, 0, rest).time_s);
  }
  return time;
}

StepTime Generation::decode(std::int64_t n_cached_tokens,
                            std::int64_t n_sequences,
                            bool details,
                            std::int64_t n_new_tokens) {
  steps_->emit({.n_sequences = n_sequences,
                .n_new_tokens = n_new_tokens,
                .n_cached_tokens = n_cached_tokens},
               ops_);
  return pricer_.price(ops_, steps_->n_layers(), details);
}

double pipeline_speed_up(std::int64_t n_stages, double n_chunks, double share) {
  const auto stages = static_cast<double>(n_stages);
  return 1.0 + share * (stages * n_chunks / (n_chunks + stages - 1.0) - 1.0);
}

ModelSpec prediction_block(const ModelSpec& model) {
  const bool has_block =
      std::ranges::any_of(model.extras, [](const ExtraPart& part) { return part.kind == "mtp"; });
  if (!has_block || model.layers.empty()) {
    throw InputError("--draft-tokens",
                     model.name + " has no prediction blocks of its own",
                     "give a draft model: --draft MODEL");
  }
  const std::string last = "blk." + std::to_string(model.layers.size() - 1) + ".";
  ModelSpec block = model;
  block.layers = {model.layers.back()};
  block.tensors.clear();
  for (const Tensor& tensor : model.tensors) {
    const bool of_layer = tensor.name.starts_with("blk.");
    if (tensor.name.starts_with(last)) {
      block.tensors.push_back(tensor);
      block.tensors.back().name = "blk.0." + tensor.name.substr(last.size());
    } else if (!of_layer) {
      block.tensors.push_back(tensor);
    }
  }
  return block;
}

double expected_tokens(double acceptance, std::int64_t n_draft_tokens) {
  const auto n = static_cast<double>(n_draft_tokens) + 1.0;
  return acceptance >= 1.0 ? n : (1.0 - std::pow(acceptance, n)) / (1.0 - acceptance);
}

}  // namespace kvfathom
