// Points as they are measured, on disk before the next one starts: what a crash leaves, the next
// run of the same plan on the same machine takes up.
#pragma once

#include <filesystem>
#include <map>
#include <string>

namespace kvfathom::calibrate {

class Journal {
 public:
  /// Reads what an earlier run of the same `heading` (machine, build and plan, one line) left, else
  /// starts anew. MachineError where the file cannot be written.
  Journal(std::filesystem::path path, const std::string& heading);
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;
  ~Journal();

  /// Seconds of every point so far, by its name.
  [[nodiscard]] const std::map<std::string, double>& times_s() const { return times_s_; }
  void add(const std::string& point, double time_s);
  /// The calibration is written: nothing to resume.
  void finish();

 private:
  void read(const std::string& heading);
  void write(const std::string& line);

  std::filesystem::path path_;
  std::map<std::string, double> times_s_;
  int file_ = -1;
};

}  // namespace kvfathom::calibrate
