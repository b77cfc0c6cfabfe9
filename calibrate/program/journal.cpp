#include "calibrate/program/journal.h"

#include <cerrno>
#include <fstream>
#include <sstream>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include "model/error.h"

namespace kvfathom::calibrate {
namespace {

[[noreturn]] void cannot_write(const std::filesystem::path& path) {
  throw MachineError(path.string(),
                     "cannot be written: " + std::generic_category().message(errno),
                     "give --out FILE in a folder that can");
}

}  // namespace

Journal::Journal(std::filesystem::path path, const std::string& heading) : path_(std::move(path)) {
  read(heading);
  const int mode = times_s_.empty() ? O_TRUNC : O_APPEND;
  constexpr int kReadable = 0644;
  file_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | mode, kReadable);
  if (file_ < 0) {
    cannot_write(path_);
  }
  // A line that a crash cut short is ended, and ignored by whoever reads it.
  write(times_s_.empty() ? heading : "");
}

Journal::~Journal() {
  ::close(file_);
}

void Journal::read(const std::string& heading) {
  std::ifstream file(path_);
  std::string line;
  if (!std::getline(file, line) || line != heading) {
    return;
  }
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string name;
    std::string end;
    double time_s = 0.0;
    if (words >> name >> time_s >> end && end == "." && time_s > 0.0) {
      times_s_[name] = time_s;
    }
  }
}

void Journal::write(const std::string& line) {
  const std::string text = line + "\n";
  if (::write(file_, text.data(), text.size()) != static_cast<ssize_t>(text.size()) ||
      ::fsync(file_) != 0) {
    cannot_write(path_);
  }
}

void Journal::add(const std::string& point, double time_s) {
  std::ostringstream line;
  line.precision(9);
  line << point << ' ' << time_s << " .";
  write(line.str());
  times_s_[point] = time_s;
}

void Journal::finish() {
  std::error_code ignored;  // one that stays is taken up by the next run, and its points are right
  std::filesystem::remove(path_, ignored);
}

}  // namespace kvfathom::calibrate
