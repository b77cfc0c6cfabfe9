// Models split over several GGUF files (llama.cpp's gguf-split).
#include <cstring>
#include <optional>
#include <unordered_set>

#include "model/error.h"
#include "model/io/gguf.h"
#include "model/io/gguf_keys.h"

namespace kvfathom {
namespace {

constexpr std::string_view kShardKey = "split.no";
constexpr std::string_view kCountKey = "split.count";
constexpr std::string_view kTensorsKey = "split.tensors.count";
constexpr std::int64_t kMaxShards = 99999;  // five digits in the name

std::string five_digits(std::int64_t n) {
  const std::string digits = std::to_string(n);
  return std::string(5 - digits.size(), '0') + digits;
}

/// The name of shard `number` (from 1): PREFIX-00002-of-00005.gguf.
std::string shard_path(const std::string& prefix, std::int64_t number, std::int64_t count) {
  return prefix + "-" + five_digits(number) + "-of-" + five_digits(count) + ".gguf";
}

std::int64_t split_key(const GgufHeader& header, std::string_view key, std::int64_t max) {
  return GgufKeys(header, "").integer_at(key, {.min = 0, .max = max}).value_or(0);
}

/// What stands before -0000i-of-0000N.gguf in the name of a shard.
std::string prefix_of(const GgufHeader& header, std::int64_t number, std::int64_t count) {
  const std::string tail = shard_path("", number, count);
  if (!header.path.ends_with(tail)) {
    throw InputError(header.path,
                     "is shard " + std::to_string(number) + " of " + std::to_string(count) +
                         " but is not named so",
                     "a name that ends in " + tail);
  }
  return header.path.substr(0, header.path.size() - tail.size());
}

GgufFile open_shard(const std::string& prefix, std::int64_t number, std::int64_t count) {
  const std::string path = shard_path(prefix, number, count);
  if (!is_regular_file(path)) {
    throw InputError(path, "is missing", "all " + std::to_string(count) + " shards of the model");
  }
  GgufFile shard = open_gguf(path);
  const std::int64_t its_count = split_key(shard.header, kCountKey, kMaxShards);
  const std::int64_t its_number = split_key(shard.header, kShardKey, kMaxShards) + 1;
  if (its_count != count || its_number != number) {
    throw InputError(
        path,
        "says it is shard " + std::to_string(its_number) + " of " + std::to_string(its_count),
        "shard " + std::to_string(number) + " of " + std::to_string(count));
  }
  return shard;
}

void check_tensors(const std::vector<GgufFile>& shards) {
  std::unordered_set<std::string_view> names;
  for (const GgufFile& shard : shards) {
    for (const GgufTensor& tensor : shard.header.tensors) {
      if (!names.insert(tensor.name).second) {
        throw InputError(shard.header.path + ": tensor " + in_quotes(tensor.name),
                         "occurs in an earlier shard as well",
                         "each name once");
      }
    }
  }
  const GgufHeader& first = shards.front().header;
  const auto said = GgufKeys(first, "").integer_at(kTensorsKey, {.min = 0, .max = 1LL << 40});
  if (said && *said != static_cast<std::int64_t>(names.size())) {
    throw InputError(first.path + ": key " + in_quotes(kTensorsKey),
                     std::to_string(*said),
                     std::to_string(names.size()) + ", the tensors in all shards");
  }
}

}  // namespace

std::vector<GgufFile> open_gguf_shards(const std::string& path) {
  std::vector<GgufFile> shards;
  shards.push_back(open_gguf(path));
  const GgufHeader& named = shards.front().header;
  const std::int64_t count = split_key(named, kCountKey, kMaxShards);
  if (count < 2) {
    return shards;
  }
  const std::int64_t own = split_key(named, kShardKey, kMaxShards - 1) + 1;
  const std::string prefix = prefix_of(named, own, count);
  shards.clear();
  for (std::int64_t number = 1; number <= count; ++number) {
    shards.push_back(open_shard(prefix, number, count));
  }
  check_tensors(shards);
  return shards;
}

}  // namespace kvfathom
