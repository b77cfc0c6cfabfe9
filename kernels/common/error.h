// How kernels refuse. calibrate/ and cli/ translate these into the program's own errors; nothing
// of kvfathom's other folders is known here.
#pragma once

#include <stdexcept>

namespace kvfathom::kernels {

/// The arguments name a shape or a format that no kernel is built for, or contradict each other.
class UnsupportedShape : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

/// There is no device to run on: built without CUDA, no driver, no GPU. The text says which.
class NoDevice : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The device or its driver failed: the call, and the driver's own words.
class DeviceError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace kvfathom::kernels
