#include "calibrate/program/arms.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <numeric>
#include <thread>

#include "calibrate/program/decode_loop.h"
#include "calibrate/timing/host_timer.h"
#include "kernels/common/weight_format.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/gemm/gemm.h"
#include "kernels/host_transfer/host_transfer.h"
#include "kernels/residual_recompute/residual_recompute.h"

namespace kvfathom::calibrate {
namespace {

using Clock = std::chrono::steady_clock;

/// More than last caches hold.
constexpr double kOutgrown = 128e6;
/// Of what moves in one sample; more is scaled, piece by piece.
constexpr double kMostMoved = 256e6;
constexpr double kLongSampleSeconds = 0.25;  ///< of layers
constexpr double kHeldSampleSeconds = 0.1;   ///< of a link that is held to a rate

TimerOptions timer(const ArmsRequest& request) {
  TimerOptions options;
  options.min_samples = 7;
  options.max_interval = 0.02;
  options.max_total_s = request.most_s;
  return options;
}

int sets_of(double bytes_per_set, int most) {
  return std::clamp(static_cast<int>(std::ceil(kOutgrown / bytes_per_set)), 1, most);
}

ArmTime scaled(const char* arm, std::int64_t n_tokens, const Timing& timing, double factor) {
  return {.n_tokens = n_tokens,
          .arm = arm,
          .time_s = factor * timing.median_s,
          .low_s = factor * timing.low_s,
          .high_s = factor * timing.high_s};
}

/// Sleeps while that is safe and watches the clock for the rest: as little as possible is taken
/// from the cores that work meanwhile.
void wait_until(Clock::time_point due) {
  constexpr auto kLate = std::chrono::microseconds(200);
  if (due - Clock::now() > kLate) {
    std::this_thread::sleep_until(due - kLate);
  }
  while (Clock::now() < due) {
  }
}

/// Bytes that come over the link into memory.
class Transfer {
 public:
  Transfer(const PlayedLink& link, double bytes, int n_threads)
      : link_(link), n_threads_(n_threads) {
    link_.piece_bytes = std::min<std::int64_t>(link_.piece_bytes, std::llround(bytes));
    if (is_held()) {
      shorten_pieces();
    }
    const auto piece = static_cast<double>(link_.piece_bytes);
    const double n_all = std::ceil(bytes / piece);
    const double most =
        std::min(kMostMoved / piece, is_held() ? kHeldSampleSeconds / piece_s() : kMostMoved);
    const double n_run = std::max(1.0, std::floor(most));
    const double run_bytes = n_run < n_all ? n_run * piece : bytes;
    factor_ = bytes / run_bytes;
    n_sets_ = is_held() ? 1 : sets_of(2.0 * run_bytes, 64);
    bytes_per_set_ = std::llround(run_bytes);
    for (std::int64_t at = 0; at < bytes_per_set_; at += link_.piece_bytes) {
      pieces_.push_back({at, at, std::min(link_.piece_bytes, bytes_per_set_ - at)});
    }
    source_.assign(n_sets_ * bytes_per_set_, std::byte{1});
    destination_.assign(n_sets_ * bytes_per_set_, std::byte{0});
  }

  [[nodiscard]] ArmTime measured(const char* arm, std::int64_t n_tokens, TimerOptions options) {
    options.min_samples = is_held() ? 3 : options.min_samples;  // the clock says how long it takes
    const Timing timing = time_on_host([&](int set) { run(set); }, n_sets_, options);
    return scaled(arm, n_tokens, timing, factor_);
  }

 private:
  [[nodiscard]] bool is_held() const { return link_.bandwidth_bytes_per_s > 0.0; }
  [[nodiscard]] double piece_s() const {
    return link_.call_s + static_cast<double>(link_.piece_bytes) / link_.bandwidth_bytes_per_s;
  }
  /// Where one of many pieces lasts longer than a sample should: a part of it, and as large a part
  /// of its call.
  void shorten_pieces() {
    const double share = std::min(1.0, kHeldSampleSeconds / piece_s());
    link_.piece_bytes = std::llround(share * static_cast<double>(link_.piece_bytes));
    link_.call_s *= share;
  }

  void run(int set) {
    kernels::HostTransferParams all{.source = source_.data() + set * bytes_per_set_,
                                    .destination = destination_.data() + set * bytes_per_set_,
                                    .pieces = pieces_.data(),
                                    .n_pieces = static_cast<int>(pieces_.size())};
    if (!is_held()) {
      kernels::host_transfer_cpu(all, n_threads_);
      return;
    }
    Clock::time_point due = Clock::now();
    for (const kernels::TransferPiece& piece : pieces_) {
      kernels::HostTransferParams one = all;
      one.pieces = &piece;
      one.n_pieces = 1;
      kernels::host_transfer_cpu(one, n_threads_);
      due += std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(
          link_.call_s + static_cast<double>(piece.bytes) / link_.bandwidth_bytes_per_s));
      wait_until(due);
    }
  }

  PlayedLink link_;
  int n_threads_;
  double factor_ = 1.0;  ///< of all the bytes, over those that move in a sample
  int n_sets_ = 1;
  std::int64_t bytes_per_set_ = 0;
  std::vector<kernels::TransferPiece> pieces_;
  std::vector<std::byte> source_, destination_;
};

/// The prompt again: a loop of as many layers as outgrow the last cache, and the output head.
class Recompute {
 public:
  explicit Recompute(const ArmsRequest& request)
      : request_(request),
        n_held_(std::min(request.shape.n_layers, sets_of(layer_weight_bytes(request.shape), 64))),
        loop_(held_shape(request.shape, n_held_),
              LoopCache{},
              static_cast<int>(*std::ranges::max_element(request.lengths_tokens)),
              request.n_threads),
        head_s_(head_time(request)) {}

  [[nodiscard]] ArmTime measured(std::int64_t n_tokens) {
    const auto started = Clock::now();
    layers(n_tokens, 1);
    const double one_s = std::chrono::duration<double>(Clock::now() - started).count();
    const int n_run = std::clamp(static_cast<int>(kLongSampleSeconds / one_s), 1, n_held_);
    // Layers so few that a cache holds their weights last a hundred times as long as reading them.
    const Timing timing = time_on_host([&](int) { layers(n_tokens, n_run); }, 1, timer(request_));
    ArmTime time = scaled(
        kRecomputeArm, n_tokens, timing, static_cast<double>(request_.shape.n_layers) / n_run);
    for (double* seconds : {&time.time_s, &time.low_s, &time.high_s}) {
      *seconds += head_s_;
    }
    time.n_layers = n_run;
    return time;
  }

 private:
  static LoopShape held_shape(LoopShape shape, int n_held) {
    shape.n_layers = n_held;
    shape.vocab_size = 8;  // no token of this loop is chosen
    return shape;
  }

  static double head_time(const ArmsRequest& request) {
    const LoopShape& shape = request.shape;
    const std::vector<std::byte> weights = kernels::random_weights(
        kernels::WeightFormat::bf16, shape.vocab_size, shape.hidden_size, 0.02F, 1);
    const std::vector<std::uint16_t> x = bench::random_bf16(shape.hidden_size, 2);
    std::vector<std::uint16_t> logits(shape.vocab_size);
    std::int32_t token = 0;
    const auto run = [&](int) {
      kernels::gemm_cpu({.m = 1,
                         .weights = {kernels::WeightFormat::bf16,
                                     shape.vocab_size,
                                     shape.hidden_size,
                                     weights.data()},
                         .x = x.data(),
                         .out = logits.data()},
                        request.n_threads);
      kernels::sample_cpu({.n_rows = 1,
                           .vocab_size = shape.vocab_size,
                           .element = kernels::Element::bf16,
                           .logits = logits.data(),
                           .temperature = 0.0F,
                           .tokens = &token},
                          request.n_threads);
    };
    return time_on_host(run, 1, timer(request)).median_s;
  }

  void layers(std::int64_t n_tokens, int count) {
    for (std::int64_t done = 0; done < n_tokens; done += request_.chunk_tokens) {
      loop_.prompt(static_cast<int>(std::min(request_.chunk_tokens, n_tokens - done)),
                   static_cast<int>(done),
                   count);
    }
  }

  ArmsRequest request_;
  int n_held_;
  DecodeLoop loop_;
  double head_s_;
};

/// K and V of one layer from its input, which lies in memory.
ArmTime measured_projection(const ArmsRequest& request, std::int64_t n_tokens) {
  const LoopShape& shape = request.shape;
  const std::size_t width = std::size_t(shape.n_kv_heads) * shape.head_dim;
  const std::size_t n_x = static_cast<std::size_t>(n_tokens) * shape.hidden_size;
  const std::size_t n_weights = 2 * width * shape.hidden_size;
  const int n_sets =
      std::min(shape.n_layers, sets_of(2.0 * static_cast<double>(n_x + n_weights), 16));
  std::vector<std::vector<std::uint16_t>> x;
  std::vector<std::vector<std::uint16_t>> weights;
  for (int set = 0; set < n_sets; ++set) {
    x.push_back(bench::random_bf16(n_x, 1));
    weights.push_back(bench::random_bf16(n_weights, 2, 0.02F));
  }
  const std::vector<std::uint16_t> norm = bench::random_bf16(shape.hidden_size, 3);
  const auto turns = kernels::rope_turns_per_position(shape.head_dim, 10000.0);
  const std::vector<std::int32_t> sequences(n_tokens, 0);
  std::vector<std::int32_t> positions(n_tokens);
  std::iota(positions.begin(), positions.end(), 0);
  const bench::RandomCache cache(bench::Place::cpu,
                                 {.format = kernels::KvFormat::bf16,
                                  .n_kv_heads = shape.n_kv_heads,
                                  .k_dim = shape.head_dim,
                                  .v_dim = shape.head_dim,
                                  .tokens = static_cast<int>(n_tokens)},
                                 4);
  kernels::ResidualRecomputeParams params;
  params.x.n_columns = shape.hidden_size;
  params.norm_weight = reinterpret_cast<const kernels::Bf16*>(norm.data());
  params.to = {.n_tokens = static_cast<int>(n_tokens),
               .head_dim = shape.head_dim,
               .cache = cache.view(),
               .rope = {.rotary_dim = shape.head_dim, .turns_per_position = turns.data()},
               .sequences = sequences.data(),
               .slots = positions.data(),
               .positions = positions.data()};
  const auto run = [&](int set) {
    params.x.data = x[set].data();
    params.weights = reinterpret_cast<const kernels::Bf16*>(weights[set].data());
    kernels::residual_recompute_cpu(params, request.n_threads);
  };
  ArmTime time =
      scaled(kProjectArm, n_tokens, time_on_host(run, n_sets, timer(request)), shape.n_layers);
  time.n_layers = 1;
  return time;
}

}  // namespace

void measure_arms(const ArmsRequest& request, const std::function<void(const ArmTime&)>& sink) {
  const LoopShape& shape = request.shape;
  const double kv_bytes = 2.0 * 2.0 * shape.n_kv_heads * shape.head_dim * shape.n_layers;
  const double x_bytes = 2.0 * shape.hidden_size * shape.n_layers;
  Recompute recompute(request);
  for (const std::int64_t n_tokens : request.lengths_tokens) {
    const auto tokens = static_cast<double>(n_tokens);
    const auto fetched = [&](const char* arm, double bytes_per_token) {
      ArmTime time = Transfer(request.link, tokens * bytes_per_token, request.n_threads)
                         .measured(arm, n_tokens, timer(request));
      time.n_layers = shape.n_layers;
      return time;
    };
    sink(fetched(kFetchArm, kv_bytes));
    sink(recompute.measured(n_tokens));
    sink(fetched(kFetchXArm, x_bytes));
    sink(measured_projection(request, n_tokens));
  }
}

}  // namespace kvfathom::calibrate
