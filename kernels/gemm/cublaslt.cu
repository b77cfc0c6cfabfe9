// gemm by cuBLASLt, opened at run time: the library is half a gigabyte, and who does not have it
// still has every other kernel. The emulator has none.
#include "kernels/common/error.h"
#include "kernels/gemm/gemm.h"

#if defined(__CUDACC__)

#include <array>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>

#include <cublasLt.h>
#include <dlfcn.h>

namespace kvfathom::kernels {
namespace {

constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;

/// The functions used, under their own names.
struct Functions {
  decltype(&::cublasLtCreate) cublasLtCreate = nullptr;
  decltype(&::cublasLtMatmul) cublasLtMatmul = nullptr;
  decltype(&::cublasLtMatmulAlgoGetHeuristic) cublasLtMatmulAlgoGetHeuristic = nullptr;
  decltype(&::cublasLtMatmulDescCreate) cublasLtMatmulDescCreate = nullptr;
  decltype(&::cublasLtMatmulDescSetAttribute) cublasLtMatmulDescSetAttribute = nullptr;
  decltype(&::cublasLtMatmulPreferenceCreate) cublasLtMatmulPreferenceCreate = nullptr;
  decltype(&::cublasLtMatmulPreferenceDestroy) cublasLtMatmulPreferenceDestroy = nullptr;
  decltype(&::cublasLtMatmulPreferenceSetAttribute) cublasLtMatmulPreferenceSetAttribute = nullptr;
  decltype(&::cublasLtMatrixLayoutCreate) cublasLtMatrixLayoutCreate = nullptr;
};

void check(cublasStatus_t status, const char* call) {
  if (status != CUBLAS_STATUS_SUCCESS) {
    throw DeviceError(std::string(call) + " failed with status " +
                      std::to_string(static_cast<int>(status)));
  }
}

/// One shape's descriptors and algorithm; they live as long as the program.
struct Plan {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t weights = nullptr;
  cublasLtMatrixLayout_t x = nullptr;
  cublasLtMatrixLayout_t out = nullptr;
  cublasLtMatmulAlgo_t algorithm = {};
};

class Library {
 public:
  static Library& instance() {
    static Library library;
    return library;
  }
  [[nodiscard]] const std::string& missing() const { return missing_; }

  void multiply(const GemmParams& p, Stream stream) {
    const std::scoped_lock lock(mutex_);
    if (handle_ == nullptr) {
      check(functions_.cublasLtCreate(&handle_), "cublasLtCreate");
    }
    const Key key{p.weights.format, p.m, p.weights.n, p.weights.k};
    auto plan = plans_.find(key);
    if (plan == plans_.end()) {
      plan = plans_.emplace(key, make_plan(p)).first;
    }
    auto workspace = workspaces_.find(stream);
    if (workspace == workspaces_.end()) {
      workspace = workspaces_.emplace(stream, DeviceArray<std::byte>(kWorkspaceBytes)).first;
    }
    const float one = 1.0F;
    const float zero = 0.0F;
    const Plan& with = plan->second;
    check(functions_.cublasLtMatmul(handle_,
                                    with.operation,
                                    &one,
                                    p.weights.data,
                                    with.weights,
                                    p.x,
                                    with.x,
                                    &zero,
                                    p.out,
                                    with.out,
                                    p.out,
                                    with.out,
                                    &with.algorithm,
                                    workspace->second.data(),
                                    kWorkspaceBytes,
                                    stream),
          "cublasLtMatmul");
  }

 private:
  using Key = std::tuple<WeightFormat, int, std::int64_t, std::int64_t>;

  Library() {
    void* library = nullptr;
    for (const char* name : {"libcublasLt.so.13", "libcublasLt.so.12"}) {
      library = library != nullptr ? library : dlopen(name, RTLD_NOW | RTLD_LOCAL);
    }
    if (library == nullptr) {
      missing_ = "cuBLASLt cannot be opened (libcublasLt.so.13 or .12): install CUDA's cuBLAS";
      return;
    }
    load(library, "cublasLtCreate", functions_.cublasLtCreate);
    load(library, "cublasLtMatmul", functions_.cublasLtMatmul);
    load(library, "cublasLtMatmulAlgoGetHeuristic", functions_.cublasLtMatmulAlgoGetHeuristic);
    load(library, "cublasLtMatmulDescCreate", functions_.cublasLtMatmulDescCreate);
    load(library, "cublasLtMatmulDescSetAttribute", functions_.cublasLtMatmulDescSetAttribute);
    load(library, "cublasLtMatmulPreferenceCreate", functions_.cublasLtMatmulPreferenceCreate);
    load(library, "cublasLtMatmulPreferenceDestroy", functions_.cublasLtMatmulPreferenceDestroy);
    load(library,
         "cublasLtMatmulPreferenceSetAttribute",
         functions_.cublasLtMatmulPreferenceSetAttribute);
    load(library, "cublasLtMatrixLayoutCreate", functions_.cublasLtMatrixLayoutCreate);
  }

  template <typename Function>
  void load(void* library, const char* name, Function& function) {
    function = reinterpret_cast<Function>(dlsym(library, name));
    if (function == nullptr) {
      missing_ = std::string("cuBLASLt has no ") + name;
    }
  }

  /// Column-major, as cuBLAS counts: out^T [n, m] = W [n, k] x^T, where W's rows and x's are
  /// columns of length k.
  [[nodiscard]] Plan make_plan(const GemmParams& p) const {
    const cudaDataType_t type = p.weights.format == WeightFormat::bf16 ? CUDA_R_16BF : CUDA_R_16F;
    const auto n = static_cast<std::uint64_t>(p.weights.n);
    const auto k = static_cast<std::uint64_t>(p.weights.k);
    const auto m = static_cast<std::uint64_t>(p.m);
    Plan plan;
    check(functions_.cublasLtMatmulDescCreate(&plan.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
          "cublasLtMatmulDescCreate");
    const cublasOperation_t transposed = CUBLAS_OP_T;
    check(functions_.cublasLtMatmulDescSetAttribute(
              plan.operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed)),
          "cublasLtMatmulDescSetAttribute");
    const auto layout = [&](cublasLtMatrixLayout_t& of, std::uint64_t rows, std::uint64_t columns) {
      check(functions_.cublasLtMatrixLayoutCreate(
                &of, type, rows, columns, static_cast<std::int64_t>(rows)),
            "cublasLtMatrixLayoutCreate");
    };
    layout(plan.weights, k, n);
    layout(plan.x, k, m);
    layout(plan.out, n, m);
    plan.algorithm = choose(plan);
    return plan;
  }

  [[nodiscard]] cublasLtMatmulAlgo_t choose(const Plan& plan) const {
    cublasLtMatmulPreference_t preference = nullptr;
    check(functions_.cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
    const std::unique_ptr<cublasLtMatmulPreferenceOpaque_t,
                          decltype(&::cublasLtMatmulPreferenceDestroy)>
        owned(preference, functions_.cublasLtMatmulPreferenceDestroy);
    check(functions_.cublasLtMatmulPreferenceSetAttribute(preference,
                                                          CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                          &kWorkspaceBytes,
                                                          sizeof(kWorkspaceBytes)),
          "cublasLtMatmulPreferenceSetAttribute");
    cublasLtMatmulHeuristicResult_t best{};
    int found = 0;
    check(functions_.cublasLtMatmulAlgoGetHeuristic(handle_,
                                                    plan.operation,
                                                    plan.weights,
                                                    plan.x,
                                                    plan.out,
                                                    plan.out,
                                                    preference,
                                                    1,
                                                    &best,
                                                    &found),
          "cublasLtMatmulAlgoGetHeuristic");
    if (found == 0) {
      throw UnsupportedShape("gemm: cuBLASLt has no algorithm for this shape");
    }
    return best.algo;
  }

  std::string missing_;
  Functions functions_;
  cublasLtHandle_t handle_ = nullptr;
  std::mutex mutex_;
  std::map<Key, Plan> plans_;
  std::map<Stream, DeviceArray<std::byte>> workspaces_;
};

}  // namespace

std::string gemm_library_missing() {
  return Library::instance().missing();
}

void gemm_library_launch(const GemmParams& params, Stream stream) {
  const std::string missing = gemm_library_missing();
  if (!missing.empty()) {
    throw NoDevice(missing);
  }
  Library::instance().multiply(params, stream);
}

}  // namespace kvfathom::kernels

#else

namespace kvfathom::kernels {

std::string gemm_library_missing() {
  return "the emulator has no cuBLASLt";
}
void gemm_library_launch(const GemmParams& /*params*/, Stream /*stream*/) {
  throw NoDevice(gemm_library_missing());
}

}  // namespace kvfathom::kernels

#endif
