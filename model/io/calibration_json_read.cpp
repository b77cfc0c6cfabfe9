#include <array>

#include "model/io/calibration_json.h"
#include "model/io/file.h"
#include "model/io/json_reader.h"

namespace kvfathom {
namespace {

constexpr std::string_view kSchema = "kvfathom.calibration/1";
constexpr Range kCount{0, std::int64_t{1} << 40};

template <typename T>
std::optional<T> maybe(const Reader& reader, const char* key) {
  return reader.has(key) ? std::optional(T(reader.positive(key))) : std::nullopt;
}

Interval interval(const Reader& reader, const char* key) {
  const std::vector<double> ends = reader.numbers(key);
  if (ends.size() != 2 || ends[0] > ends[1]) {
    throw reader.error(key, reader.shown(key), "two numbers, the smaller first");
  }
  return {ends[0], ends[1]};
}

std::optional<Interval> maybe_interval(const Reader& reader, const char* key) {
  return reader.has(key) ? std::optional(interval(reader, key)) : std::nullopt;
}

Law law_of(const Reader& theta) {
  constexpr std::array<std::string_view, 6> kKnown{
      "t0_s", "wave_s", "bandwidth_bytes_per_s", "flops_per_s", "dequant_ops_per_s", "p"};
  theta.refuse_unknown(kKnown);
  Law law{.fixed = Seconds(theta.not_negative("t0_s")),
          .wave = maybe<Seconds>(theta, "wave_s"),
          .bandwidth = maybe<BytesPerSecond>(theta, "bandwidth_bytes_per_s"),
          .flops = maybe<FlopsPerSecond>(theta, "flops_per_s"),
          .dequant_ops_per_s = maybe<double>(theta, "dequant_ops_per_s"),
          .p = theta.number("p")};
  if (law.p < 1.0) {
    throw theta.error("p", theta.shown("p"), "a number of at least 1");
  }
  return law;
}

LawIntervals intervals_of(const Reader& ci90) {
  return {maybe_interval(ci90, "t0_s"),
          maybe_interval(ci90, "wave_s"),
          maybe_interval(ci90, "bandwidth_bytes_per_s"),
          maybe_interval(ci90, "flops_per_s"),
          maybe_interval(ci90, "dequant_ops_per_s"),
          maybe_interval(ci90, "p")};
}

FitErrors errors_of(const Reader& errors) {
  return {errors.count("n", kCount),
          errors.not_negative("median"),
          errors.not_negative("mape"),
          errors.not_negative("p90"),
          errors.not_negative("max")};
}

std::vector<CalibrationPoint> points_of(const Reader& reader) {
  std::vector<CalibrationPoint> points;
  if (!reader.has("points")) {
    return points;
  }
  for (const Reader& point : reader.objects("points")) {
    points.push_back({Work{.bytes = Bytes(point.not_negative("bytes")),
                           .flops = Flops(point.not_negative("flops")),
                           .dequant_ops = point.not_negative("dequant_ops"),
                           .waves = point.not_negative("waves"),
                           .launches = static_cast<int>(point.count("launches", {1, 1 << 20}))},
                      Seconds(point.positive("time_s"))});
  }
  return points;
}

FittedClass class_of(const Reader& reader) {
  constexpr std::array<std::string_view, 12> kKnown{"id",
                                                    "provenance",
                                                    "theta",
                                                    "ci90",
                                                    "loo",
                                                    "holdout",
                                                    "residuals",
                                                    "range",
                                                    "n_points",
                                                    "source",
                                                    "notes",
                                                    "points"};
  reader.refuse_unknown(kKnown);
  const std::optional<KernelClass> id = kernel_class_named(reader.text("id"));
  if (!id) {
    throw reader.error("id", reader.shown("id"), "op/format, /d<head dim>, /g<group>, /variant");
  }
  FittedClass fitted;
  fitted.id = *id;
  fitted.provenance = reader.provenance("provenance");
  fitted.law = law_of(reader.object("theta"));
  fitted.ci90 = intervals_of(reader.object("ci90"));
  fitted.loo = errors_of(reader.object("loo"));
  if (reader.has("holdout")) {
    fitted.holdout = errors_of(reader.object("holdout"));
  }
  const Reader residuals = reader.object("residuals");
  fitted.residuals = {residuals.number("q05"), residuals.number("q50"), residuals.number("q95")};
  if (fitted.residuals.q05 > fitted.residuals.q95) {
    throw residuals.error("q05", residuals.shown("q05"), "at most q95");
  }
  const Reader range = reader.object("range");
  fitted.range = {interval(range, "bytes"), interval(range, "flops"), interval(range, "waves")};
  fitted.n_points = reader.count("n_points", kCount);
  fitted.source = reader.text("source");
  fitted.notes = reader.texts("notes");
  fitted.points = points_of(reader);
  return fitted;
}

Ceilings ceilings_of(const Reader& reader) {
  constexpr std::array<std::string_view, 7> kKnown{"read_bytes_per_s",
                                                   "copy_bytes_per_s",
                                                   "flops_per_s",
                                                   "host_to_device_bytes_per_s",
                                                   "host_to_device_call_s",
                                                   "launch_s",
                                                   "graph_gap_s"};
  reader.refuse_unknown(kKnown);
  Ceilings ceilings{.read = maybe<BytesPerSecond>(reader, "read_bytes_per_s"),
                    .copy = maybe<BytesPerSecond>(reader, "copy_bytes_per_s"),
                    .flops = {},
                    .host_to_device = maybe<BytesPerSecond>(reader, "host_to_device_bytes_per_s"),
                    .host_to_device_call = maybe<Seconds>(reader, "host_to_device_call_s"),
                    .launch = maybe<Seconds>(reader, "launch_s"),
                    .graph_gap = maybe<Seconds>(reader, "graph_gap_s")};
  if (reader.has("flops_per_s")) {
    const Reader rates = reader.object("flops_per_s");
    for (const std::string& format : rates.keys()) {
      ceilings.flops[format] = FlopsPerSecond(rates.positive(format.c_str()));
    }
  }
  return ceilings;
}

Session session_of(const Reader& reader) {
  constexpr std::array<std::string_view, 9> kKnown{"utc",
                                                   "os_kernel",
                                                   "compiler",
                                                   "build",
                                                   "n_threads",
                                                   "seed",
                                                   "duration_s",
                                                   "read_bytes_per_s",
                                                   "flags"};
  reader.refuse_unknown(kKnown);
  return {.utc = reader.text("utc"),
          .os_kernel = reader.text("os_kernel"),
          .compiler = reader.text("compiler"),
          .build = reader.text("build"),
          .n_threads = reader.count("n_threads", kCount),
          .seed = reader.count("seed", kCount),
          .duration_s = reader.not_negative("duration_s"),
          .read_bytes_per_s = reader.numbers("read_bytes_per_s"),
          .flags = reader.texts("flags")};
}

}  // namespace

Calibration read_calibration(const std::string& path) {
  return read_calibration_text(read_text_file(path), path);
}

Calibration read_calibration_text(std::string_view json, const std::string& source) {
  const nlohmann::json document = parse_json(json, source);
  const Reader reader(document, source);
  constexpr std::array<std::string_view, 8> kKnown{
      "schema", "kvfathom_version", "device", "engine", "source", "session", "ceilings", "classes"};
  reader.refuse_unknown(kKnown);
  if (reader.text("schema") != kSchema) {
    throw reader.error("schema", reader.shown("schema"), std::string(kSchema));
  }
  const Reader device = reader.object("device");
  const Reader engine = reader.object("engine");
  Calibration calibration;
  calibration.device_name = device.text("name");
  calibration.device_id = device.text("id");
  calibration.n_compute_units = device.maybe_count("n_compute_units");
  calibration.engine = engine.text("name");
  calibration.engine_version = engine.text("version");
  calibration.source = reader.text("source");
  if (reader.has("session")) {
    calibration.session = session_of(reader.object("session"));
  }
  calibration.ceilings = ceilings_of(reader.object("ceilings"));
  for (const Reader& fitted : reader.objects("classes")) {
    calibration.classes.push_back(class_of(fitted));
  }
  return calibration;
}

}  // namespace kvfathom
