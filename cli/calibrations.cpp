#include "cli/calibrations.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "calibrate/calibrations_directory.h"
#include "model/error.h"
#include "model/io/calibration_json.h"

namespace kvfathom::cli {
namespace {

namespace fs = std::filesystem;

constexpr const char* kProgram = "kvfathom-calibrate";

std::string begun(const OwnCalibration& own) {
  return own.calibration.session ? own.calibration.session->utc : "";
}

std::optional<Calibration> chosen(const Options& options, const Query& query) {
  if (options.calibration) {
    return *options.calibration == "none" ? std::nullopt
                                          : std::optional(read_calibration(*options.calibration));
  }
  if (!is_formula(*query.engine)) {
    return std::nullopt;
  }
  for (OwnCalibration& own : calibrations_in(calibrations_directory())) {
    if (own.calibration.device_name == query.machine.devices.front().name) {
      return std::move(own.calibration);
    }
  }
  return std::nullopt;
}

/// The program and its arguments.
std::vector<std::string> command_line(const std::vector<std::string>& arguments) {
  std::error_code ignored;  // no /proc: as if nothing were beside
  std::vector<std::string> words = arguments;
  words.insert(words.begin(),
               calibrate_program(fs::read_symlink("/proc/self/exe", ignored)).string());
  return words;
}

[[noreturn]] void become(std::vector<std::string> words) {
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) {
    argv.push_back(word.data());
  }
  argv.push_back(nullptr);
  ::execv(argv.front(), argv.data());
  throw MachineError(words.front(), std::generic_category().message(errno), "");
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

}  // namespace

std::vector<OwnCalibration> calibrations_in(const fs::path& folder) {
  std::vector<OwnCalibration> all;
  std::error_code none;  // no folder, no calibrations
  for (const auto& entry : fs::directory_iterator(folder, none)) {
    if (entry.path().extension() != ".json") {
      continue;
    }
    try {
      all.push_back({entry.path(), read_calibration(entry.path().string())});
    } catch (const InputError&) {
      continue;  // of another version, or not ours: named outright, it is refused with a reason
    }
  }
  std::sort(all.begin(), all.end(), [](const OwnCalibration& a, const OwnCalibration& b) {
    return std::pair(begun(a), a.path) > std::pair(begun(b), b.path);
  });
  return all;
}

void choose_calibration(const Options& options, Query& query) {
  query.calibration = chosen(options, query);
  if (!query.calibration) {
    return;
  }
  HardwareSpec& device = query.machine.devices.front();
  const Ceilings& ceilings = query.calibration->ceilings;
  if (device.bandwidth.value() <= 0.0 && ceilings.read) {
    device.bandwidth = *ceilings.read;
  }
  if (device.peak_rates.empty()) {
    device.peak_rates = ceilings.flops;
  }
}

fs::path calibrate_program(const fs::path& executable) {
  fs::path program = executable.parent_path() / kProgram;
  std::error_code ignored;
  if (executable.empty() || !fs::is_regular_file(program, ignored)) {
    throw MachineError(program.string(),
                       "not there: it is a program of its own, as it needs OpenBLAS and OpenMP",
                       "build it: cmake --preset cpu && ninja -C build/cpu kvfathom-calibrate");
  }
  return program;
}

int calibrate(const std::vector<std::string>& arguments) {
  become(command_line(arguments));
}

std::vector<std::string> calibrate_output(const std::vector<std::string>& arguments) {
  const std::vector<std::string> words = command_line(arguments);
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    throw MachineError(kProgram, std::generic_category().message(errno), "");
  }
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(ends[1], STDOUT_FILENO);
    try {
      become(words);
    } catch (const Error&) {
      ::_exit(MachineError("", "", "").exit_code());
    }
  }
  ::close(ends[1]);
  std::string text;
  std::array<char, 4096> part{};
  ssize_t n = 0;
  while (child > 0 && (n = ::read(ends[0], part.data(), part.size())) > 0) {
    text.append(part.data(), static_cast<std::size_t>(n));
  }
  ::close(ends[0]);
  int status = 0;
  if (child < 0 || ::waitpid(child, &status, 0) != child || status != 0) {
    throw MachineError(words.front(), "failed", "");
  }
  return lines_of(text);
}

}  // namespace kvfathom::cli
