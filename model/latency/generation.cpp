#include "model/latency/generation.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <string>

#include "model/error.h"
#include "model/rounding.h"

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

/// What all rows of a step go through together, whichever sequence they are of.
bool is_shared(const Op& op) {
  constexpr std::array kKinds{OpKind::gemm,
                              OpKind::moe_ffn,
                              OpKind::cache_write,
                              OpKind::elementwise,
                              OpKind::peer_transfer,
                              OpKind::all_reduce,
                              OpKind::all_to_all};
  return op.part == kBringWeights || std::ranges::find(kKinds, op.op_class.kind) != kKinds.end();
}

/// What only rows with logits go through: of a prompt its last, of a decode step all.
bool is_of_logits(const Op& op) {
  return op.part == "output head" || op.part == "sample";
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
  spread_over_stages(sum.time_s, divide_up(n_tokens, chunk_tokens_));
  return sum;
}

void Generation::spread_over_stages(Estimate& prompt, std::int64_t n_chunks) const {
  const double sooner = pipeline_speed_up(
      steps_->settings().pipeline_parallel, static_cast<double>(n_chunks), pipeline_share_);
  prompt.value /= sooner;
  prompt.low /= sooner;
  prompt.high /= sooner;
}

void Generation::emit_beside(const StepShape& chunk, const Running& running) {
  steps_->emit(chunk, ops_);
  std::erase_if(ops_, [](const Op& op) { return is_shared(op); });
  StepShape all = chunk;
  all.n_sequences = 1;  // rows are rows
  all.n_new_tokens = chunk.n_sequences * chunk.n_new_tokens + running.n_sequences;
  steps_->emit(all, other_ops_);
  std::ranges::copy_if(other_ops_, std::back_inserter(ops_), [](const Op& op) {
    return is_shared(op) && !is_of_logits(op);
  });
  steps_->emit({.n_sequences = running.n_sequences, .n_cached_tokens = running.n_cached_tokens},
               other_ops_);
  std::ranges::copy_if(other_ops_, std::back_inserter(ops_), [](const Op& op) {
    return !is_shared(op) || is_of_logits(op);
  });
}

Estimate Generation::step_beside(std::int64_t n_tokens,
                                 std::int64_t n_cached_tokens,
                                 const Running& running) {
  emit_beside(
      {.phase = Phase::prefill, .n_new_tokens = n_tokens, .n_cached_tokens = n_cached_tokens},
      running);
  return pricer_.price(ops_, steps_->n_layers(), false).time_s;
}

Estimate Generation::prompt_beside(std::int64_t n_tokens,
                                   const Running& running,
                                   std::int64_t n_sequences) {
  if (running.n_sequences == 0) {
    return prompt(n_tokens, 0, n_sequences).time_s;
  }
  const std::int64_t most = std::max<std::int64_t>(1, chunk_tokens_ - running.n_sequences);
  Estimate sum{.provenance = Provenance::exact};
  for (std::int64_t done = 0; done < n_tokens; done += most) {
    emit_beside({.phase = Phase::prefill,
                 .n_sequences = n_sequences,
                 .n_new_tokens = std::min(most, n_tokens - done),
                 .n_cached_tokens = done,
                 .ends_prompt = done + most >= n_tokens},
                running);
    add_time(sum, pricer_.price(ops_, steps_->n_layers(), false).time_s);
  }
  spread_over_stages(sum, divide_up(n_tokens, most));
  return sum;
}

Estimate Generation::prompts(std::int64_t n_tokens,
                             std::int64_t n_prompts,
                             const Running& running) {
  const std::int64_t room = chunk_tokens_ - running.n_sequences;
  const std::int64_t n_together =
      std::clamp<std::int64_t>(room / std::max<std::int64_t>(1, n_tokens), 1, n_prompts);
  const std::int64_t n_whole = n_prompts / n_together;
  const auto n_rounds = static_cast<double>(n_whole);
  Estimate time = prompt_beside(n_tokens, running, n_together);
  time.value *= n_rounds;
  time.low *= n_rounds;
  time.high *= n_rounds;
  if (const std::int64_t rest = n_prompts % n_together; rest > 0) {
    add_time(time, prompt_beside(n_tokens, running, rest));
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
