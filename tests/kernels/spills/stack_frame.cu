// A planted mistake: an array whose index is known at run time only lives in local memory.
__global__ void stack_frame(float* p, const int* order, int n) {
  float v[32];
  for (int i = 0; i < 32; ++i) {
    v[order[i]] = p[i * 32];
  }
  float sum = 0;
  for (int i = 0; i < n; ++i) {
    sum += v[order[i] ^ 1] * sum;
  }
  p[threadIdx.x] = sum;
}
