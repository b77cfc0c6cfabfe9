// What is measured of the ways to bring a cached prefix back, as words between `kvfathom`, which
// knows models and predicts, and `kvfathom-calibrate`, which runs kernels.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "calibrate/loop_shape.h"

namespace kvfathom::calibrate {

/// The way in, played by copies within this machine's memory.
struct PlayedLink {
  double bandwidth_bytes_per_s = 0.0;  ///< held to it; 0: as fast as memory copies
  double call_s = 0.0;                 ///< waited for before each piece; nothing where not held
  std::int64_t piece_bytes = std::int64_t{2} << 20;
  friend bool operator==(const PlayedLink&, const PlayedLink&) = default;
};

struct ArmsRequest {
  LoopShape shape;  ///< of the whole model
  PlayedLink link = {};
  std::int64_t chunk_tokens = 2048;  ///< of a prompt, at a time
  int n_threads = 0;                 ///< 0: all
  double most_s = 3.0;               ///< that one arm is timed at one length, besides warming up
  std::vector<std::int64_t> lengths_tokens = {};
  friend bool operator==(const ArmsRequest&, const ArmsRequest&) = default;
};

/// Each as one word of a command line, "hidden_size=1024".
[[nodiscard]] std::vector<std::string> words_of(const ArmsRequest& request);
/// InputError naming the word that is none.
[[nodiscard]] ArmsRequest arms_request(const std::vector<std::string>& words);

/// Median and its 95 % interval of the whole model's time, scaled from the layers that ran.
struct ArmTime {
  std::int64_t n_tokens = 0;
  std::string arm = {};  ///< one of the below
  double time_s = 0.0;
  double low_s = 0.0;
  double high_s = 0.0;
  int n_layers = 0;  ///< that ran
  friend bool operator==(const ArmTime&, const ArmTime&) = default;
};
inline constexpr const char* kFetchArm = "fetch-kv";     ///< K and V over the link
inline constexpr const char* kRecomputeArm = "prompt";   ///< from token ids
inline constexpr const char* kFetchXArm = "fetch-x";     ///< every layer's input over the link
inline constexpr const char* kProjectArm = "project-x";  ///< K and V from it, in memory

[[nodiscard]] std::string line_of(const ArmTime& time);
/// MachineError for a line that is none.
[[nodiscard]] ArmTime arm_time(const std::string& line);

}  // namespace kvfathom::calibrate
