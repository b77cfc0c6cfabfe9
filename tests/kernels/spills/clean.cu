__global__ void clean(float* p) {
  p[threadIdx.x] = p[threadIdx.x] / 3.1F + sqrtf(p[2 * threadIdx.x]);
}
