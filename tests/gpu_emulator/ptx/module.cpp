// A module's variables and functions, and the heads of functions.
#include <cstdlib>

#include "ptx/text.h"

namespace emu {
namespace {

std::string without_comments(const std::string& text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '/' && i + 1 < text.size() && text[i + 1] == '/') {
      while (i < text.size() && text[i] != '\n') ++i;
      out += '\n';
    } else if (text[i] == '/' && i + 1 < text.size() && text[i + 1] == '*') {
      i = text.find("*/", i + 2);
      if (i == std::string::npos) break;
      ++i;
    } else {
      out += text[i];
    }
  }
  return out;
}

}  // namespace

std::unique_ptr<Module> parse_module(std::string raw) {
  auto module = std::make_unique<Module>();
  module->text = without_comments(raw);
  const std::string& t = module->text;
  size_t i = 0;
  while (i < t.size()) {
    if (is_space(t[i]) || t[i] == ';') {
      ++i;
      continue;
    }
    if (t.compare(i, 8, ".version") == 0 || t.compare(i, 7, ".target") == 0 || t.compare(i, 13, ".address_size") == 0 ||
        t.compare(i, 5, ".file") == 0) {
      i = t.find('\n', i);
      continue;
    }
    // A declaration up to ';' or a function up to its closing brace.
    const size_t stop = t.find_first_of("{;", i);
    const std::string_view head(t.data() + i, stop - i);
    const bool function = head.find(".entry") != std::string_view::npos || head.find(".func") != std::string_view::npos;
    if (!function) {
      const size_t end = t.find(';', i);
      const std::string_view statement(t.data() + i, end - i);
      auto keep = [&](std::string_view space, std::vector<Variable>& into) {
        const size_t at = statement.find(space);
        if (at == std::string_view::npos) return false;
        Variable v = parse_variable(std::string(statement.substr(0, at)) + " " +
                                    std::string(statement.substr(at + space.size())));
        into.push_back(std::move(v));
        return true;
      };
      if (!keep(".shared ", module->shared) && !keep(".const ", module->constant)) keep(".global ", module->global);
      i = end + 1;
      continue;
    }
    if (t[stop] == ';') {  // a prototype
      i = stop + 1;
      continue;
    }
    size_t end = stop;
    int depth = 0;
    do {
      if (t[end] == '{') ++depth;
      if (t[end] == '}') --depth;
      ++end;
    } while (depth > 0 && end < t.size());
    const bool entry = head.find(".entry") != std::string_view::npos;
    size_t at = head.find(entry ? ".entry" : ".func") + (entry ? 6 : 5);
    while (at < head.size() && is_space(head[at])) ++at;
    if (!entry && head[at] == '(') {
      at = head.find(')', at) + 1;
      while (at < head.size() && is_space(head[at])) ++at;
    }
    size_t name_end = at;
    while (name_end < head.size() && is_name(head[name_end])) ++name_end;
    std::string name(head.substr(at, name_end - at));
    module->bodies[name] = {i, end};
    i = end;
  }
  return module;
}

std::unique_ptr<Function> parse_function(const Module& module, const std::string& name) {
  const auto found = module.bodies.find(name);
  if (found == module.bodies.end()) parse_error("no function " + name);
  const auto [begin, end] = found->second;
  const std::string_view text(module.text.data() + begin, end - begin);
  auto f = std::make_unique<Function>();
  f->name = name;
  const size_t brace = text.find('{');
  const std::string_view head = text.substr(0, brace);
  const size_t open = head.find('(', head.find(name)), close = head.rfind(')');
  if (open != std::string_view::npos && close != std::string_view::npos) {
    for (std::string_view item : split(head.substr(open + 1, close - open - 1), ',')) {
      item = trim(item);
      if (item.rfind(".param", 0) != 0) parse_error("parameter " + std::string(item.substr(0, 80)));
      // ".param .u64 .ptr .align 1 name"
      std::string cleaned;
      const auto tokens = words(item.substr(6));
      for (size_t i = 0; i < tokens.size(); ++i) {
        if (tokens[i] == ".ptr") {
          while (i + 1 < tokens.size() && (tokens[i + 1][0] == '.')) i += tokens[i + 1] == ".align" ? 2 : 1;
          continue;
        }
        cleaned += tokens[i] + " ";
      }
      const Variable v = parse_variable(cleaned);
      f->parameter_bytes = (f->parameter_bytes + v.align - 1) / v.align * v.align;
      f->parameters.push_back({v.name, v.bytes, v.align, f->parameter_bytes});
      f->parameter_bytes += v.bytes;
    }
  }
  if (const size_t at = head.find(".maxntid"); at != std::string_view::npos) {
    f->max_threads = 1;
    for (std::string_view n : split(head.substr(at + 8, head.find('\n', at) - at - 8), ',')) {
      f->max_threads *= std::atoi(std::string(n).c_str());
    }
  }
  parse_body(*f, text.substr(brace + 1, text.size() - brace - 2));
  return f;
}

}  // namespace emu
