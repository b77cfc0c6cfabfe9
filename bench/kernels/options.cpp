#include "bench/kernels/options.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <ostream>
#include <set>

#include <boost/program_options.hpp>

#include "model/error.h"
#include "model/text/size.h"

namespace kvfathom::bench {
namespace {

namespace po = boost::program_options;

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts = {""};
  for (const char c : text) {
    if (c == at) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

std::string join(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) {
    text += (text.empty() ? "" : ", ") + part;
  }
  return text;
}

po::options_description described_options() {
  po::options_description options("Options");
  options.add_options()("help,h", "say this and stop")(
      "list", "name the kernels with their formats and dimensions, and stop")(
      "kernels", po::value<std::string>(), "only these, separated by commas")(
      "formats", po::value<std::string>(), "only these formats, separated by commas")(
      "shapes",
      po::value<std::vector<std::string>>()->composing(),
      "standard, tiny, or dimensions to replace those of the first standard shape: "
      "tokens=65536,n_heads=32; may be given again for a further shape")(
      "device", po::value<std::string>()->default_value("all"), "cpu, cuda or all")(
      "threads", po::value<std::string>(), "of the CPU; default: all")(
      "rotation-bytes",
      po::value<std::string>(),
      "how much memory the input sets of a case take together at least, so that no cache holds "
      "them: 1GiB; default: four times the last cache, and 256MiB")(
      "max-seconds",
      po::value<std::string>(),
      "when to stop measuring a case that does not settle; default: 2")(
      "config", po::value<std::string>(), "a file of these options: kernels = decode_attention");
  return options;
}

std::vector<std::string> option_names() {
  std::vector<std::string> names;
  const po::options_description described = described_options();
  for (const auto& option : described.options()) {
    names.push_back("--" + option->long_name());
  }
  return names;
}

[[noreturn]] void refuse(const std::string& where, const std::string& found) {
  throw InputError(where, found, "options are " + join(option_names()) + ", --benchmark_*");
}

std::int64_t parse_count(const std::string& text, const std::string& where) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value <= 0) {
    throw InputError(where, "\"" + text + "\" is no positive whole number", "");
  }
  return value;
}

double parse_seconds(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !(value > 0.0)) {
    throw InputError("--max-seconds", "\"" + text + "\" is no positive number", "");
  }
  return value;
}

void read_shape(const std::string& text, Options& options) {
  if (text == "standard") {
    return;
  }
  if (text == "tiny") {
    options.tiny = true;
    return;
  }
  options.shapes.emplace_back();
  for (const std::string& part : split(text, ',')) {
    const std::size_t equals = part.find('=');
    if (equals == std::string::npos) {
      throw InputError("--shapes",
                       "\"" + part + "\" is no shape",
                       "shapes are standard, tiny, or dimensions such as tokens=4096,n_heads=32");
    }
    const std::string dim = part.substr(0, equals);
    options.shapes.back().emplace_back(dim,
                                       parse_count(part.substr(equals + 1), "--shapes " + dim));
  }
}

void read_device(const std::string& text, Options& options) {
  if (text != "cpu" && text != "cuda" && text != "all") {
    throw InputError("--device", "\"" + text + "\" is none", "devices are cpu, cuda, all");
  }
  options.on_cpu = text != "cuda";
  options.on_cuda = text != "cpu";
  options.must_have_cuda = text == "cuda";
}

Options read(const po::variables_map& given) {
  Options options;
  options.help = given.count("help") > 0;
  options.list = given.count("list") > 0;
  const auto text = [&](const char* name) {
    return given.count(name) > 0 ? given[name].as<std::string>() : std::string();
  };
  if (given.count("kernels") > 0) {
    options.kernels = split(text("kernels"), ',');
  }
  if (given.count("formats") > 0) {
    options.formats = split(text("formats"), ',');
  }
  if (given.count("shapes") > 0) {
    for (const std::string& shape : given["shapes"].as<std::vector<std::string>>()) {
      read_shape(shape, options);
    }
  }
  read_device(text("device"), options);
  if (given.count("threads") > 0) {
    options.n_threads = static_cast<int>(parse_count(text("threads"), "--threads"));
  }
  if (given.count("rotation-bytes") > 0) {
    options.rotation_bytes = parse_size(text("rotation-bytes"), "--rotation-bytes");
  }
  if (given.count("max-seconds") > 0) {
    options.max_seconds = parse_seconds(text("max-seconds"));
  }
  return options;
}

void check_names(const std::string& option,
                 const std::vector<std::string>& wanted,
                 const std::set<std::string>& known) {
  for (const std::string& one : wanted) {
    if (!known.contains(one)) {
      throw InputError(option,
                       "\"" + one + "\" is none",
                       option.substr(2) + " are " + join({known.begin(), known.end()}));
    }
  }
}

bool chosen(const std::vector<std::string>& wanted, const std::string& one) {
  return wanted.empty() || std::find(wanted.begin(), wanted.end(), one) != wanted.end();
}

std::vector<Shape> shapes_of(const KernelBench& kernel, const Options& options) {
  if (options.tiny) {
    return {kernel.tiny};
  }
  if (options.shapes.empty()) {
    return kernel.shapes;
  }
  std::vector<Shape> shapes;
  for (const auto& dims : options.shapes) {
    Shape shape = kernel.shapes.front();
    for (const auto& [dim, value] : dims) {
      shape.set(dim, value);
    }
    shapes.push_back(std::move(shape));
  }
  return shapes;
}

}  // namespace

Options parse_options(int argc, const char* const* argv) {
  const po::options_description described = described_options();
  std::vector<std::string> own;
  std::vector<std::string> library;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    (argument.rfind("--benchmark_", 0) == 0 ? library : own).push_back(argument);
  }
  po::variables_map given;
  try {
    constexpr int kStyle = po::command_line_style::unix_style &
                           ~static_cast<int>(po::command_line_style::allow_guessing);
    const auto parsed = po::command_line_parser(own)
                            .options(described)
                            .positional(po::positional_options_description())
                            .style(kStyle)
                            .run();
    po::store(parsed, given);
    if (given.count("config") > 0) {
      const std::string path = given["config"].as<std::string>();
      std::ifstream file(path);
      if (!file) {
        throw InputError("--config", "cannot read " + path, "");
      }
      po::store(po::parse_config_file(file, described), given);
    }
  } catch (const po::error& error) {
    refuse("kvfathom-bench", error.what());
  }
  Options options = read(given);
  options.library_arguments = std::move(library);
  return options;
}

void print_help(std::ostream& out) {
  out << "kvfathom-bench [options] [--benchmark_*]\n\n"
         "Times the kernels on this machine's CPU and GPU, and says what share of the memory's\n"
         "measured read bandwidth each reaches. Results are held to the reference first.\n"
         "Bytes written count too; memory takes them beside its reads, so what writes as much as\n"
         "it reads (a copy, the step of a state) may reach more than 1.\n"
         "Google Benchmark's own options work: --benchmark_filter, --benchmark_format=json,\n"
         "--benchmark_out=FILE, --benchmark_repetitions.\n\n"
      << described_options();
}

std::string PlannedCase::name() const {
  return std::string(bench::name(request.place)) + "/" + kernel->name + "/" + request.format + "/" +
         request.shape.text();
}

std::vector<PlannedCase> plan_cases(const Options& options) {
  std::set<std::string> kernels;
  std::set<std::string> formats;
  for (const KernelBench& kernel : all_kernels()) {
    kernels.insert(kernel.name);
    if (chosen(options.kernels, kernel.name)) {
      formats.insert(kernel.formats.begin(), kernel.formats.end());
    }
  }
  check_names("--kernels", options.kernels, kernels);
  check_names("--formats", options.formats, formats);

  std::vector<PlannedCase> cases;
  for (const Place place : {Place::cpu, Place::cuda}) {
    for (const KernelBench& kernel : all_kernels()) {
      const bool wanted =
          (place == Place::cpu ? options.on_cpu : options.on_cuda) &&
          chosen(options.kernels, kernel.name) &&
          std::find(kernel.places.begin(), kernel.places.end(), place) != kernel.places.end();
      for (const std::string& format : kernel.formats) {
        if (!wanted || !chosen(options.formats, format)) {
          continue;
        }
        for (const Shape& shape : shapes_of(kernel, options)) {
          cases.push_back(PlannedCase{&kernel, Request{place, format, shape, options.n_threads}});
        }
      }
    }
  }
  return cases;
}

}  // namespace kvfathom::bench
