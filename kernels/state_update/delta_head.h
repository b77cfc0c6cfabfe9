// What the vectorised delta-rule step takes: one type for every instruction set.
#pragma once

namespace kvfathom::kernels {

/// One head's vectors as float.
struct DeltaHead {
  const float* q;
  const float* k;
  const float* v;
  const float* decay;
  float beta;
  int key_dim;
  int value_dim;
};

}  // namespace kvfathom::kernels
