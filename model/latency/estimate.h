// A predicted number and how sure it is.
#pragma once

#include "model/provenance.h"

namespace kvfathom {

/// With a 90 % interval. Seconds, or tokens a second: the field's name says which.
struct Estimate {
  double value = 0.0;
  double low = 0.0;
  double high = 0.0;
  Provenance provenance = Provenance::assumed;
};

}  // namespace kvfathom
