#include "calibrate/prefix_arms.h"

#include <limits>
#include <locale>
#include <sstream>

#include "model/error.h"

namespace kvfathom::calibrate {
namespace {

/// Text that reads back as the same number, whatever the user's locale.
template <class T>
std::string text_of(T value) {
  std::ostringstream text;
  text.imbue(std::locale::classic());
  text.precision(std::numeric_limits<double>::max_digits10);
  text << value;
  return text.str();
}

template <class T>
T number(const std::string& word, const std::string& text) {
  std::istringstream stream(text);
  stream.imbue(std::locale::classic());
  T value{};
  if (!(stream >> value) || !stream.eof() || value < T{}) {
    throw InputError(word, "\"" + text + "\" is no number", "");
  }
  return value;
}

/// Every word but the lengths, by name.
template <class Request, class Visit>
void visit_fields(Request& request, const Visit& visit) {
  visit("hidden_size", request.shape.hidden_size);
  visit("n_layers", request.shape.n_layers);
  visit("n_heads", request.shape.n_heads);
  visit("n_kv_heads", request.shape.n_kv_heads);
  visit("head_dim", request.shape.head_dim);
  visit("intermediate_size", request.shape.intermediate_size);
  visit("n_experts", request.shape.n_experts);
  visit("n_chosen", request.shape.n_chosen);
  visit("vocab_size", request.shape.vocab_size);
  visit("bandwidth_bytes_per_s", request.link.bandwidth_bytes_per_s);
  visit("call_s", request.link.call_s);
  visit("piece_bytes", request.link.piece_bytes);
  visit("chunk_tokens", request.chunk_tokens);
  visit("n_threads", request.n_threads);
  visit("most_s", request.most_s);
}

constexpr const char* kTokens = "tokens";

}  // namespace

std::vector<std::string> words_of(const ArmsRequest& request) {
  std::vector<std::string> words;
  visit_fields(request, [&](const char* field, const auto& value) {
    words.push_back(std::string(field) + "=" + text_of(value));
  });
  for (const std::int64_t length : request.lengths_tokens) {
    words.push_back(std::string(kTokens) + "=" + text_of(length));
  }
  return words;
}

ArmsRequest arms_request(const std::vector<std::string>& words) {
  ArmsRequest request;
  for (const std::string& word : words) {
    const std::size_t at = word.find('=');
    const std::string field = word.substr(0, at);
    const std::string text = at == std::string::npos ? "" : word.substr(at + 1);
    bool is_known = field == kTokens;
    if (is_known) {
      request.lengths_tokens.push_back(number<std::int64_t>(word, text));
    }
    visit_fields(request, [&]<class T>(const char* known, T& value) {
      if (field == known) {
        is_known = true;
        value = number<T>(word, text);
      }
    });
    if (!is_known) {
      throw InputError(word, "is no field of a prefix's arms", "");
    }
  }
  return request;
}

std::string line_of(const ArmTime& time) {
  return text_of(time.n_tokens) + " " + time.arm + " " + text_of(time.time_s) + " " +
         text_of(time.low_s) + " " + text_of(time.high_s) + " " + text_of(time.n_layers);
}

ArmTime arm_time(const std::string& line) {
  std::istringstream stream(line);
  stream.imbue(std::locale::classic());
  ArmTime time;
  if (!(stream >> time.n_tokens >> time.arm >> time.time_s >> time.low_s >> time.high_s >>
        time.n_layers)) {
    throw MachineError("kvfathom-calibrate", "\"" + line + "\" is no time of an arm", "");
  }
  return time;
}

}  // namespace kvfathom::calibrate
