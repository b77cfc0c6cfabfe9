#include "model/cache/request_text.h"

#include <algorithm>
#include <charconv>

#include "model/engine/engine.h"
#include "model/error.h"

namespace kvfathom::cache {
namespace {

std::string lowered(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return result;
}

/// What was typed, safe to print and of bounded length.
std::string quoted(std::string_view text) {
  constexpr std::size_t kMost = 60;
  std::string result(text.substr(0, kMost));
  for (char& c : result) {
    c = static_cast<unsigned char>(c) < ' ' || c == '\x7f' ? '?' : c;
  }
  return '"' + result + (text.size() > kMost ? "..\"" : "\"");
}

/// "0.25" of thousandths.
std::string share_text(std::int64_t thousandths) {
  std::string digits = std::to_string(kWhole + thousandths % kWhole).substr(1);
  while (!digits.empty() && digits.back() == '0') {
    digits.pop_back();
  }
  return std::to_string(thousandths / kWhole) + (digits.empty() ? "" : "." + digits);
}

std::optional<std::int64_t> whole_number(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  return failure == std::errc{} && end == text.data() + text.size() ? std::optional(value)
                                                                    : std::nullopt;
}

/// Thousandths of a plain decimal fraction with up to three digits.
std::optional<std::int64_t> share_number(std::string_view text) {
  const std::size_t dot = std::min(text.find('.'), text.size());
  std::string digits(text.substr(0, dot));
  const std::string_view fraction = dot < text.size() ? text.substr(dot + 1) : "";
  constexpr std::size_t kDigits = 3;
  if (digits.empty() || digits.front() == '-' || digits.size() > kDigits ||
      fraction.size() > kDigits || fraction.find('-') != std::string_view::npos) {
    return std::nullopt;
  }
  digits.append(fraction).append(kDigits - fraction.size(), '0');
  return whole_number(digits);
}

template <class P>
std::string text_of(const Key<P>& key, std::int64_t value) {
  for (const Word& word : key.words) {
    if (word.value == value) {
      return word.word;
    }
  }
  return key.is_share ? share_text(value) : std::to_string(value);
}

template <class P>
std::string allowed(const Key<P>& key) {
  std::string text;
  for (const Word& word : key.words) {
    text += (text.empty() ? "" : "|") + std::string(word.word);
  }
  if (key.low <= key.high) {
    text += (text.empty() ? "" : "|") + text_of(key, key.low) + " to " + text_of(key, key.high);
  }
  return text;
}

template <class P>
void set(P& parameters, std::string_view scheme, std::string_view name, std::string_view value) {
  std::string names;
  for (const Key<P>& key : P::keys()) {
    names += (names.empty() ? "" : ", ") + std::string(key.name);
    if (name != key.name) {
      continue;
    }
    for (const Word& word : key.words) {
      if (value == word.word) {
        parameters.*key.value = word.value;
        return;
      }
    }
    const auto number = key.is_share ? share_number(value) : whole_number(value);
    if (!number || *number < key.low || *number > key.high) {
      throw InputError("--scheme",
                       std::string(scheme) + ": " + key.name + " is " + quoted(value),
                       "use " + allowed(key));
    }
    parameters.*key.value = *number;
    return;
  }
  throw InputError(
      "--scheme", std::string(scheme) + " has no parameter " + quoted(name), "use one of " + names);
}

/// Applies `f(key, value)` to each item of "key=value,...".
template <class F>
void for_each_item(std::string_view scheme, std::string_view items, const F& f) {
  while (!items.empty()) {
    const std::size_t comma = std::min(items.find(','), items.size());
    const std::string_view item = items.substr(0, comma);
    const std::size_t equals = item.find('=');
    if (equals == std::string_view::npos || equals == 0) {
      throw InputError("--scheme",
                       std::string(scheme) + ": " + quoted(item) + " is no key=value",
                       "write " + std::string(scheme) + ":key=value,key=value");
    }
    f(item.substr(0, equals), item.substr(equals + 1));
    items.remove_prefix(std::min(comma + 1, items.size()));
  }
}

void check(const SchemeRequest& request) {
  const auto* eviction = std::get_if<EvictionParameters>(&request.parameters);
  if (eviction == nullptr) {
    return;
  }
  const std::string scheme(kvfathom::name(request.id));
  if (eviction->window > eviction->budget) {
    throw InputError("--scheme",
                     scheme + ": window is " + std::to_string(eviction->window),
                     "use at most the budget, " + std::to_string(eviction->budget));
  }
  const bool chooses_once =
      request.id == CacheScheme::evict_snapkv || request.id == CacheScheme::evict_grkv;
  if (!chooses_once && eviction->generated > 0) {
    throw InputError("--scheme",
                     scheme + ": generated is " + std::to_string(eviction->generated),
                     "leave it out: this scheme goes on evicting while it decodes");
  }
  if (request.id != CacheScheme::evict_streaming &&
      eviction->prefill == EvictionParameters::kStreamed) {
    throw InputError("--scheme",
                     scheme + ": prefill is \"streamed\"",
                     "use whole|layerwise: the choice needs the scores of the whole prompt");
  }
}

template <class P>
std::string items_of(const P& value, const P& defaults, Spelling spelling) {
  std::string text;
  for (const Key<P>& key : P::keys()) {
    if (spelling == Spelling::every || value.*key.value != defaults.*key.value) {
      text +=
          (text.empty() ? "" : ",") + std::string(key.name) + "=" + text_of(key, value.*key.value);
    }
  }
  return text;
}

template <class P>
std::string help_of(const P& defaults) {
  std::string text;
  for (const Key<P>& key : P::keys()) {
    text += (text.empty() ? "" : ", ") + std::string(key.name) + "=" +
            text_of(key, defaults.*key.value) + " (" + allowed(key) + ")";
  }
  return text;
}

/// Calls `f` with the struct of parameters; schemes that take none are left alone.
template <class Parameters, class F>
void with_parameters(Parameters& parameters, const F& f) {
  std::visit(
      [&](auto& p) {
        if constexpr (!std::is_same_v<std::remove_cvref_t<decltype(p)>, std::monostate>) {
          f(p);
        }
      },
      parameters);
}

}  // namespace

ParsedScheme parse_scheme(std::string_view text) {
  const std::string lower = lowered(text);
  ParsedScheme parsed;
  std::string_view rest = lower;
  const std::size_t plus = rest.find('+');
  const auto read_offload = [&](std::string_view part) {
    const std::string_view items = part.substr(std::min(part.find(':') + 1, part.size()));
    parsed.offload.emplace();
    for_each_item("offload",
                  part.find(':') == std::string_view::npos ? "" : items,
                  [&](auto key, auto value) { set(*parsed.offload, "offload", key, value); });
  };
  const auto is_offload = [](std::string_view part) {
    return part.substr(0, part.find(':')) == Offload::name;
  };
  if (plus != std::string_view::npos) {
    const std::string_view second = rest.substr(plus + 1);
    if (!is_offload(second) || is_offload(rest.substr(0, plus))) {
      throw InputError("--scheme",
                       quoted(text) + " joins what does not compose",
                       "write A+offload:key=value,...");
    }
    read_offload(second);
    rest = rest.substr(0, plus);
  } else if (is_offload(rest)) {
    read_offload(rest);
    parsed.request = SchemeRequest(CacheScheme::offload);
    return parsed;
  }
  const std::size_t colon = rest.find(':');
  const std::string_view scheme = rest.substr(0, colon);
  parsed.request = SchemeRequest(scheme_named(scheme));
  if (colon != std::string_view::npos) {
    const std::string_view items = rest.substr(colon + 1);
    if (std::holds_alternative<std::monostate>(parsed.request.parameters)) {
      throw InputError("--scheme",
                       std::string(scheme) + " takes no parameters, found " + quoted(items),
                       "leave them out");
    }
    with_parameters(parsed.request.parameters, [&](auto& p) {
      for_each_item(scheme, items, [&](auto key, auto value) { set(p, scheme, key, value); });
    });
  }
  check(parsed.request);
  return parsed;
}

std::string spelled(const SchemeRequest& request,
                    const std::optional<Offload>& offload,
                    Spelling spelling) {
  std::string text;
  const auto add = [&](std::string_view scheme, const std::string& items) {
    text += (text.empty() ? "" : "+") + std::string(scheme) + (items.empty() ? "" : ":" + items);
  };
  const SchemeRequest defaults(request.id);
  if (request.id != CacheScheme::offload) {
    std::string items;
    with_parameters(request.parameters, [&](const auto& p) {
      using P = std::remove_cvref_t<decltype(p)>;
      const P* const usual = std::get_if<P>(&defaults.parameters);
      items = usual == nullptr ? "" : items_of(p, *usual, spelling);
    });
    add(kvfathom::name(request.id), items);
  }
  if (offload) {
    add(Offload::name, items_of(*offload, Offload{}, spelling));
  }
  return text;
}

std::vector<std::pair<std::string, double>> numbers_of(const SchemeRequest& request) {
  std::vector<std::pair<std::string, double>> result;
  with_parameters(request.parameters, [&](const auto& p) {
    for (const auto& key : std::remove_cvref_t<decltype(p)>::keys()) {
      if (key.low <= key.high) {
        const double unit = key.is_share ? static_cast<double>(kWhole) : 1.0;
        result.emplace_back(key.name, static_cast<double>(p.*key.value) / unit);
      }
    }
  });
  return result;
}

std::string parameter_help(CacheScheme scheme) {
  if (scheme == CacheScheme::offload) {
    return help_of(Offload{});
  }
  std::string text;
  const SchemeRequest defaults(scheme);
  with_parameters(defaults.parameters, [&](const auto& p) { text = help_of(p); });
  return text;
}

}  // namespace kvfathom::cache
