#include "model/crossover/link.h"

#include <cmath>

namespace kvfathom {
namespace {

Seconds calls_time(const Link& link, Bytes size) {
  return std::ceil(size / link.piece) * link.call;
}

}  // namespace

Seconds transfer_time(const Link& link, Bytes size) {
  return size.value() > 0.0 ? calls_time(link, size) + size / link.bandwidth : Seconds();
}

BytesPerSecond bandwidth_for(const Link& link, Bytes size, Seconds time) {
  const Seconds flowing = time - calls_time(link, size);
  return flowing.value() > 0.0 ? size / flowing : BytesPerSecond();
}

}  // namespace kvfathom
