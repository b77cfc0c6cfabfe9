// A planted mistake: far more values live than two blocks of 1024 threads leave registers for.
__global__ void __launch_bounds__(1024, 2) spills(float* p) {
  float v[64];
#pragma unroll
  for (int i = 0; i < 64; ++i) {
    v[i] = p[i * 32 + threadIdx.x];
  }
#pragma unroll
  for (int round = 0; round < 4; ++round) {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 64; ++i) {
      v[i] = v[i] * v[(i * 7 + 3) % 64] + v[(i * 5 + 1) % 64];
    }
  }
#pragma unroll
  for (int i = 0; i < 64; ++i) {
    p[i * 32 + threadIdx.x] = v[i];
  }
}
