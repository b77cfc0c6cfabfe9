#include "cli/crossover_measure.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <utility>

#include "calibrate/local_device.h"
#include "calibrate/prefix_arms.h"
#include "cli/calibrations.h"
#include "cli/crossover_arms.h"
#include "cli/values.h"
#include "model/error.h"

namespace kvfathom::cli {
namespace {

using calibrate::ArmsRequest;
using calibrate::ArmTime;

/// Of one layer's prompt: a dozen of them are timed.
constexpr double kMostLayerSeconds = 2.0;

void refuse_beside(bool given, const char* option, const char* why) {
  if (given) {
    throw InputError(option, std::string("given with --measure, which ") + why, "leave it out");
  }
}

void require_measurable(const Options& options) {
  const CrossoverOptions& c = options.crossover;
  refuse_beside(options.gpu.gpu.has_value() || options.gpu.gpus || options.gpu.memory,
                "--gpu",
                "runs on this machine's CPU");
  refuse_beside(options.engine.engine && *options.engine.engine != "ideal",
                "--engine",
                "runs the kernels of no engine");
  refuse_beside(
      c.load || c.link_load || c.queued || c.running, "--load", "measures one prefix by itself");
  refuse_beside(c.map || c.batch_map || c.svg, "--map", "measures at a few lengths");
  refuse_beside(!options.engine.schemes.empty(), "--scheme", "measures K and V, and X");
}

/// The CPU with its memory, whatever else is in the machine, and its calibration.
Query measured_query(Options options) {
  require_measurable(options);
  options.engine.engine = "ideal";
  options.gpu.gpu = "local";
  Query query = read_query(options);
  query.machine = machine_of(local_host(), 1);
  choose_calibration(options, query);
  if (!query.calibration || !query.calibration->session) {
    throw InputError("--measure",
                     "no calibration of this CPU, which the prediction would be made from",
                     "run kvfathom calibrate first, or give --calibration FILE");
  }
  for (const DType type : {query.settings.cache_type_k, query.settings.cache_type_v}) {
    if (type != DType::f16 && type != DType::bf16) {
      throw Unsupported("--cache-type-k",
                        std::string(name(type)) + ": prompts are measured with 16-bit caches",
                        "leave the cache types out");
    }
  }
  return query;
}

/// Copies within memory as they were calibrated: the law's bytes are read and written, the link's
/// counted once, and the fixed cost is of a whole transfer.
TierLink plain_copies(const Calibration& calibration, const LawSource& laws) {
  const FittedClass* copies = find_class(calibration, {.op = "host_transfer", .format = "bf16"});
  if (copies == nullptr || !copies->law.bandwidth) {
    throw InputError("--calibration",
                     "has no class host_transfer/bf16: how fast memory is copied",
                     "run kvfathom calibrate, or give --bandwidth");
  }
  constexpr double kWhole = 1e18;
  return {.tier = Tier::host,
          .name = "host",
          .link = {.bandwidth = 0.5 * *copies->law.bandwidth,
                   .call = copies->law.fixed,
                   .piece = Bytes(kWhole)},
          .log_error = laws.law({.kind = OpKind::host_transfer}, false).log_error,
          .provenance = Provenance::measured};
}

/// The link that is played: a tier at the rate given, or plain copies.
TierLink measured_tier(const Query& query, const LawSource& laws, CrossoverOptions options) {
  const bool is_held = options.bandwidth || options.call || options.piece;
  if (!is_held && options.tier.value_or("host") == "host") {
    return plain_copies(*query.calibration, laws);
  }
  options.tier = options.tier.value_or("network");
  if (!options.bandwidth) {
    throw InputError("--bandwidth",
                     "missing: a tier is played at the rate that you give",
                     "give --bandwidth, or no --tier for plain copies in memory");
  }
  return tiers_of(query, laws, options).front();
}

/// What is predicted, with as many tokens as the model was trained on.
std::vector<MeasuredCrossover> predicted(CrossoverArms& arms,
                                         const TierLink& tier,
                                         std::int64_t limit_tokens) {
  const TimeOf recompute_s = [&](std::int64_t n) { return arms.recompute(n, {}).value; };
  const TimeOf fetch_s = [&](std::int64_t n) { return arms.fetch(tier, n, {}).value; };
  const TimeOf x_s = [&](std::int64_t n) { return arms.fetch_inputs(tier, n).value; };
  std::vector<MeasuredCrossover> all;
  for (const auto& [id, time_s] : {std::pair{"native", fetch_s}, {"residual", x_s}}) {
    const std::vector<Reign> found = reigns(time_s, recompute_s, limit_tokens);
    for (std::size_t i = 1; i < found.size(); ++i) {
      all.push_back(
          {.id = id, .fetch_wins = found[i].fetch, .predicted_tokens = found[i].from_tokens});
    }
  }
  return all;
}

/// Around the points predicted for K and V; where there is none, short, middling and long.
std::vector<std::int64_t> lengths_around(const std::vector<MeasuredCrossover>& crossovers) {
  std::vector<std::int64_t> lengths;
  for (const MeasuredCrossover& at : crossovers) {
    for (const double octaves : {-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0}) {
      if (at.id == "native") {
        lengths.push_back(
            std::llround(static_cast<double>(at.predicted_tokens) * std::exp2(octaves)));
      }
    }
  }
  return lengths.empty() ? std::vector<std::int64_t>{16, 128, 1024} : lengths;
}

std::vector<std::int64_t> lengths_named(const std::string& text, std::int64_t limit) {
  std::vector<std::int64_t> lengths;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find(',', at), text.size());
    lengths.push_back(parse_count("--lengths", text.substr(at, end - at), 1, limit));
    at = end + 1;
  }
  return lengths;
}

/// Rising, none twice, none beyond `limit`; those that would take too long are put aside.
void choose_lengths(std::vector<std::int64_t> wanted,
                    std::int64_t limit,
                    CrossoverArms& arms,
                    MeasuredAnswer& answer,
                    std::vector<std::int64_t>& lengths) {
  std::sort(wanted.begin(), wanted.end());
  wanted.erase(std::unique(wanted.begin(), wanted.end()), wanted.end());
  const auto layers = static_cast<double>(arms.prefix().n_layers());
  for (const std::int64_t n : wanted) {
    if (n < 1 || n > limit) {
      continue;
    }
    const bool is_long = arms.recompute(n, {}).value / layers > kMostLayerSeconds;
    (is_long ? answer.too_long_tokens : lengths).push_back(n);
  }
  if (lengths.empty()) {
    throw InputError("--measure",
                     "one layer of " + std::to_string(answer.too_long_tokens.front()) +
                         " tokens takes more than 2 s here",
                     "choose a smaller model, or shorter ones by --lengths");
  }
}

MeasuredTime measured(const ArmTime& time) {
  return {time.time_s, time.low_s, time.high_s};
}

/// X over the link while the layer before is projected, by the same rule as the prediction: both
/// parts were timed alone.
MeasuredTime overlapped_times(const ArmTime& link, const ArmTime& project, std::int64_t n_layers) {
  const auto both = [&](double link_s, double project_s) {
    return overlapped(
               {.link = Seconds(link_s), .compute = Seconds(project_s), .n_stages = n_layers})
        .value();
  };
  return {both(link.time_s, project.time_s),
          both(link.low_s, project.low_s),
          both(link.high_s, project.high_s)};
}

void measure(const ArmsRequest& request, CrossoverArms& arms, MeasuredAnswer& answer) {
  std::map<std::int64_t, std::map<std::string, ArmTime>> times;
  std::vector<std::string> words = words_of(request);
  words.insert(words.begin(), "--arms");
  for (const std::string& line : calibrate_output(words)) {
    const ArmTime time = calibrate::arm_time(line);
    times[time.n_tokens][time.arm] = time;
  }
  for (const std::int64_t n : request.lengths_tokens) {
    const auto& of = times[n];
    const ArmTime& prompt = of.at(calibrate::kRecomputeArm);
    answer.points.push_back(
        {.n_tokens = n,
         .fetch = {arms.fetch(answer.tier, n, {}), measured(of.at(calibrate::kFetchArm))},
         .recompute = {arms.recompute(n, {}), measured(prompt)},
         .fetch_x = {arms.fetch_inputs(answer.tier, n),
                     overlapped_times(of.at(calibrate::kFetchXArm),
                                      of.at(calibrate::kProjectArm),
                                      request.shape.n_layers)},
         .n_layers = prompt.n_layers});
  }
}

/// The measured crossing, and those with fetching quickest and rebuilding slowest, and the reverse.
void find_measured(const std::vector<MeasuredPoint>& points, MeasuredCrossover& crossover) {
  const auto found = [&](double MeasuredTime::*fetch_s, double MeasuredTime::*recompute_s) {
    std::vector<LengthRatio> ratios;
    for (const MeasuredPoint& point : points) {
      const MeasuredArm& fetch = crossover.id == "native" ? point.fetch : point.fetch_x;
      ratios.push_back({static_cast<double>(point.n_tokens),
                        fetch.measured.*fetch_s / point.recompute.measured.*recompute_s});
    }
    return crossing(ratios, crossover.fetch_wins, static_cast<double>(crossover.predicted_tokens));
  };
  crossover.measured_tokens = found(&MeasuredTime::value, &MeasuredTime::value);
  const auto one = found(&MeasuredTime::low, &MeasuredTime::high);
  const auto other = found(&MeasuredTime::high, &MeasuredTime::low);
  if (one && other) {
    crossover.low_tokens = std::min(*one, *other);
    crossover.high_tokens = std::max(*one, *other);
  }
}

}  // namespace

std::optional<double> crossing(const std::vector<LengthRatio>& ratios,
                               bool fetch_wins,
                               double near_tokens) {
  std::optional<double> best;
  const auto distance = [&](double tokens) { return std::abs(std::log(tokens / near_tokens)); };
  for (std::size_t i = 1; i < ratios.size(); ++i) {
    const double before = std::log(ratios[i - 1].ratio);
    const double after = std::log(ratios[i].ratio);
    if ((before > 0.0) != fetch_wins || (after > 0.0) == fetch_wins) {
      continue;
    }
    const double share = before / (before - after);
    const double tokens =
        ratios[i - 1].n_tokens * std::pow(ratios[i].n_tokens / ratios[i - 1].n_tokens, share);
    if (!best || distance(tokens) < distance(*best)) {
      best = tokens;
    }
  }
  return best;
}

void leave_to_nearest(std::vector<MeasuredCrossover>& crossovers) {
  const auto distance = [](const MeasuredCrossover& at) {
    return std::abs(std::log(static_cast<double>(at.predicted_tokens) / *at.measured_tokens));
  };
  for (MeasuredCrossover& one : crossovers) {
    const bool is_others = std::ranges::any_of(crossovers, [&](const MeasuredCrossover& other) {
      return one.measured_tokens && other.id == one.id &&
             other.measured_tokens == one.measured_tokens && distance(other) < distance(one);
    });
    if (is_others) {
      one.measured_tokens = one.low_tokens = one.high_tokens = std::nullopt;
    }
  }
}

int crossover_measure(const Options& options, Console& console) {
  const Query query = measured_query(options);
  const calibrate::LoopShape shape = calibrate::loop_shape_of(query.model.spec);
  CrossoverArms arms(query, {.k = query.settings.cache_type_k, .v = query.settings.cache_type_v});
  MeasuredAnswer answer{.tier = measured_tier(query, arms.laws(), options.crossover),
                        .held = options.crossover.bandwidth.has_value(),
                        .n_threads = query.calibration->session->n_threads};
  constexpr std::int64_t kMostTokens = std::int64_t{1} << 20;
  const std::int64_t trained = query.model.spec.trained_context_tokens;
  const std::int64_t limit = trained > 0 ? std::min(trained, kMostTokens) : kMostTokens;
  answer.crossovers = predicted(arms, answer.tier, limit);
  ArmsRequest request{.shape = shape,
                      .chunk_tokens = chunk_tokens(query),
                      .n_threads = static_cast<int>(answer.n_threads)};
  choose_lengths(options.crossover.lengths ? lengths_named(*options.crossover.lengths, limit)
                                           : lengths_around(answer.crossovers),
                 limit,
                 arms,
                 answer,
                 request.lengths_tokens);
  if (options.crossover.seconds) {
    constexpr double kMostSeconds = 600.0;
    request.most_s = parse_share("--seconds", *options.crossover.seconds, kMostSeconds);
  }
  if (answer.held) {
    request.link = {.bandwidth_bytes_per_s = answer.tier.link.bandwidth.value(),
                    .call_s = answer.tier.link.call.value(),
                    .piece_bytes = std::llround(answer.tier.link.piece.value())};
  }
  static_cast<void>(::getloadavg(&answer.load_average, 1));  // unknown: 0
  measure(request, arms, answer);
  for (MeasuredCrossover& crossover : answer.crossovers) {
    find_measured(answer.points, crossover);
  }
  leave_to_nearest(answer.crossovers);
  if (console.json) {
    print_json(console, measured_json(query, answer));
  } else {
    print_measured(console, query, answer);
  }
  return 0;
}

}  // namespace kvfathom::cli
