// kvfathom-calibrate: measures this machine's kernels and fits their laws. `kvfathom calibrate`
// runs it: the kernels' libraries would make a small program that starts at once a large one.
#include <exception>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include <unistd.h>

#include "calibrate/program/arms.h"
#include "calibrate/program/check.h"
#include "calibrate/program/report.h"
#include "calibrate/program/session.h"
#include "kernels/common/device.h"
#include "model/error.h"
#include "model/io/calibration_json.h"

namespace kvfathom::calibrate {
namespace {

constexpr int kMachineError = 4;
constexpr const char* kHelp =
    "kvfathom calibrate [options]\n\n"
    "Measures the kernels on this machine and fits what predictions for it use. Run again, it\n"
    "takes up a run that was interrupted.\n\n"
    "  --device D      cpu (default) or cuda\n"
    "  --quick         three minutes: few points of each class (default)\n"
    "  --full          over ten minutes: all points, each until its time is sure\n"
    "  --only CLASS    classes whose name begins so: gemm, decode_attention/bf16\n"
    "  --threads N     of the CPU (default: all)\n"
    "  --seed N        of the order of points (default 1)\n"
    "  --anyway        although the machine is busy: the file is marked\n"
    "  --out FILE      default: <data home>/kvfathom/calibrations/<device>-<date>.json\n"
    "  --compare OLD   also show what changed against that file\n"
    "  --check FILE    measure nothing new: what FILE predicts of small models' tokens on the "
    "CPU,\n"
    "                  beside what they take\n"
    "  --arms WORD...  what `kvfathom crossover --measure` asks: a prefix fetched and recomputed\n";

struct Options {
  SessionSettings session;
  std::optional<std::string> compare;
  std::optional<std::string> check;
  bool help = false;
};

std::int64_t whole_number(const std::string& option, const std::string& text) {
  constexpr std::size_t kMostDigits = 6;
  if (text.empty() || text.size() > kMostDigits ||
      text.find_first_not_of("0123456789") != std::string::npos) {
    throw InputError(option, "\"" + text + "\"", "a whole number is allowed");
  }
  return std::stoll(text);
}

bench::Place place_named(const std::string& text) {
  if (text == "cpu") {
    return bench::Place::cpu;
  }
  if (text == "cuda" || text == "cuda:0") {
    return bench::Place::cuda;
  }
  throw InputError("--device",
                   "\"" + text + "\" is none",
                   "cpu or cuda; CUDA_VISIBLE_DEVICES chooses among several GPUs");
}

void set_value(Options& options, const std::string& name, const std::string& value) {
  if (name == "--device") {
    options.session.plan.place = place_named(value);
  } else if (name == "--threads") {
    options.session.plan.n_threads = static_cast<int>(whole_number(name, value));
  } else if (name == "--seed") {
    options.session.plan.seed = static_cast<std::uint64_t>(whole_number(name, value));
  } else if (name == "--only") {
    options.session.plan.only = value;
  } else if (name == "--out") {
    options.session.out = value;
  } else if (name == "--compare") {
    options.compare = value;
  } else if (name == "--check") {
    options.check = value;
  } else {
    throw InputError("calibrate", "unknown option '" + name + "'", "see kvfathom calibrate --help");
  }
}

Options parse(const std::vector<std::string>& arguments) {
  Options options;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument == "--help" || argument == "-h") {
      options.help = true;
    } else if (argument == "--quick" || argument == "--full") {
      options.session.plan.full = argument == "--full";
    } else if (argument == "--anyway") {
      options.session.anyway = true;
    } else if (const std::size_t at = argument.find('='); at != std::string::npos) {
      set_value(options, argument.substr(0, at), argument.substr(at + 1));
    } else if (i + 1 < arguments.size()) {
      set_value(options, argument, arguments[i + 1]);
      ++i;
    } else {
      set_value(options, argument, "");
    }
  }
  return options;
}

/// One line for each arm and length, as they are measured.
int run_arms(const std::vector<std::string>& words) {
  const ArmsRequest request = arms_request(words);
  if (request.lengths_tokens.empty()) {
    throw InputError("--arms", "no tokens=N among the words", "");
  }
  constexpr std::size_t kArms = 4;
  const std::size_t n_times = kArms * request.lengths_tokens.size();
  const bool is_watched = ::isatty(STDERR_FILENO) != 0;
  std::size_t n_done = 0;
  measure_arms(request, [&](const ArmTime& time) {
    std::cout << line_of(time) << std::endl;
    if (is_watched) {
      std::cerr << '\r' << ++n_done << '/' << n_times << " measured" << std::flush;
    }
  });
  if (is_watched) {
    std::cerr << '\n';
  }
  return 0;
}

int run(const std::vector<std::string>& arguments) {
  if (!arguments.empty() && arguments.front() == "--arms") {
    return run_arms({arguments.begin() + 1, arguments.end()});
  }
  const Options options = parse(arguments);
  if (options.help) {
    std::cout << kHelp;
    return 0;
  }
  if (options.check) {
    check_calibration(std::cout, read_calibration(*options.check), options.session.plan.n_threads);
    return 0;
  }
  std::optional<Calibration> before;
  if (options.compare) {
    before = read_calibration(*options.compare);
  }
  if (options.session.plan.place == bench::Place::cuda) {
    if (const std::string missing = kernels::device_missing(); !missing.empty()) {
      throw MachineError("--device cuda", missing, "use --device cpu");
    }
  }
  const auto path = output_path(options.session, device_name(options.session.plan.place));
  const Calibration now = run_session(options.session, path);
  print_calibration(std::cout, now);
  if (before) {
    print_comparison(std::cout, *before, now);
  }
  std::cout << "written to " << path.string() << '\n';
  return 0;
}

}  // namespace
}  // namespace kvfathom::calibrate

int main(int argc, char** argv) {
  try {
    return kvfathom::calibrate::run(std::vector<std::string>(argv + 1, argv + argc));
  } catch (const kvfathom::Error& error) {
    std::cerr << "kvfathom: " << error.what() << '\n';
    return error.exit_code();
  } catch (const std::exception& error) {
    std::cerr << "kvfathom: " << error.what() << '\n';
    return kvfathom::calibrate::kMachineError;
  }
}
