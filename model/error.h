// The three ways kvfathom refuses, one per exit code. "It does not fit" is none of them: that
// is a result.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace kvfathom {

/// What every kvfathom error can say. `what()` is one line, "where: found; allowed", whatever a
/// stranger's file put into its names: control characters become '?'.
class Error : public std::runtime_error {
 public:
  /// `where`: the file, field or option. `found`: what stands there and why it is wrong.
  /// `allowed`: what would be right; may be empty.
  Error(std::string where, std::string found, std::string allowed)
      : std::runtime_error(
            one_line(where + ": " + found + (allowed.empty() ? "" : "; " + allowed))),
        where_(one_line(std::move(where))),
        found_(one_line(std::move(found))),
        allowed_(one_line(std::move(allowed))) {}

  [[nodiscard]] const std::string& where() const { return where_; }
  [[nodiscard]] const std::string& found() const { return found_; }
  [[nodiscard]] const std::string& allowed() const { return allowed_; }
  [[nodiscard]] virtual int exit_code() const = 0;

 private:
  [[nodiscard]] static std::string one_line(std::string text) {
    for (char& c : text) {
      const auto byte = static_cast<unsigned char>(c);
      c = byte < 0x20 || byte == 0x7f ? '?' : c;
    }
    return text;
  }

  std::string where_;
  std::string found_;
  std::string allowed_;
};

/// The user's input is wrong and the user can mend it (exit 2).
class InputError : public Error {
 public:
  using Error::Error;
  [[nodiscard]] int exit_code() const override { return 2; }
};

/// The model, scheme, format or engine version is not understood; nothing is guessed (exit 3).
class Unsupported : public Error {
 public:
  using Error::Error;
  [[nodiscard]] int exit_code() const override { return 3; }
};

/// The machine failed: disk, driver, memory (exit 4).
class MachineError : public Error {
 public:
  using Error::Error;
  [[nodiscard]] int exit_code() const override { return 4; }
};

}  // namespace kvfathom
