#include "ptx/ptx.h"

#include <cctype>
#include <cstdlib>
#include <stdexcept>

namespace emu {
namespace {

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error("PTX parser: " + what); }

bool name_char(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '%'; }

std::string_view trim(std::string_view s) {
  while (!s.empty() && std::isspace(static_cast<unsigned char>(s.front()))) s.remove_prefix(1);
  while (!s.empty() && std::isspace(static_cast<unsigned char>(s.back()))) s.remove_suffix(1);
  return s;
}

std::vector<std::string_view> split(std::string_view s, char separator) {
  std::vector<std::string_view> result;
  int depth = 0;
  size_t begin = 0;
  for (size_t i = 0; i < s.size(); ++i) {
    if (s[i] == '{' || s[i] == '[' || s[i] == '(') ++depth;
    if (s[i] == '}' || s[i] == ']' || s[i] == ')') --depth;
    if (s[i] == separator && depth == 0) {
      result.push_back(trim(s.substr(begin, i - begin)));
      begin = i + 1;
    }
  }
  if (!trim(s.substr(begin)).empty() || !result.empty()) result.push_back(trim(s.substr(begin)));
  return result;
}

std::vector<std::string> words(std::string_view s) {
  std::vector<std::string> result;
  size_t i = 0;
  while (i < s.size()) {
    while (i < s.size() && std::isspace(static_cast<unsigned char>(s[i]))) ++i;
    const size_t begin = i;
    while (i < s.size() && !std::isspace(static_cast<unsigned char>(s[i]))) ++i;
    if (i > begin) result.emplace_back(s.substr(begin, i - begin));
  }
  return result;
}

int type_bytes(std::string_view type) {
  if (type == "pred") return 1;
  size_t i = 0;
  while (i < type.size() && !std::isdigit(static_cast<unsigned char>(type[i]))) ++i;
  const int bits = std::atoi(std::string(type.substr(i)).c_str());
  if (bits == 0) fail("type ." + std::string(type));
  return bits / 8;
}

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

// ".align 16 .b8 name[64] = {..}" after the state space.
Variable parse_variable(std::string_view s) {
  Variable v;
  std::string_view initial;
  if (const size_t equals = s.find('='); equals != std::string_view::npos) {
    initial = trim(s.substr(equals + 1));
    s = s.substr(0, equals);
  }
  int element = 0;
  const auto tokens = words(s);
  for (size_t i = 0; i < tokens.size(); ++i) {
    const std::string& t = tokens[i];
    if (t == ".align") {
      v.align = std::strtoull(tokens[++i].c_str(), nullptr, 10);
    } else if (t == ".attribute(.managed)" || t == ".visible" || t == ".weak" || t == ".common") {
    } else if (t == ".extern") {
      v.external = true;
    } else if (t[0] == '.') {
      element = type_bytes(std::string_view(t).substr(1));
    } else {
      const size_t bracket = t.find('[');
      v.name = t.substr(0, bracket);
      u64 count = 1;
      for (size_t at = bracket; at != std::string::npos; at = t.find('[', at + 1)) {
        count *= std::strtoull(t.c_str() + at + 1, nullptr, 10);
      }
      v.bytes = count * element;
    }
  }
  if (v.align < static_cast<u64>(element)) v.align = element;
  if (!initial.empty()) {
    if (initial.front() == '{') initial = initial.substr(1, initial.size() - 2);
    for (std::string_view item : split(initial, ',')) {
      const u64 value = std::strtoull(std::string(item).c_str(), nullptr, 0);
      for (int b = 0; b < element; ++b) v.initial.push_back(static_cast<u8>(value >> (8 * b)));
    }
  }
  return v;
}

class BodyParser {
 public:
  BodyParser(Function& function, std::string_view body) : f_(function), s_(body) { scopes_.push_back({0, {}}); }

  void run() {
    size_t i = 0;
    while (i < s_.size()) {
      while (i < s_.size() && (std::isspace(static_cast<unsigned char>(s_[i])) || s_[i] == ';')) {
        if (s_[i] == '\n') ++line_;
        ++i;
      }
      if (i >= s_.size()) break;
      if (s_[i] == '{') {
        scopes_.push_back({++scope_count_, {}});
        parents_[scope_count_] = scopes_[scopes_.size() - 2].id;
        ++i;
        continue;
      }
      if (s_[i] == '}') {
        scopes_.pop_back();
        ++i;
        continue;
      }
      // A label?
      size_t j = i;
      while (j < s_.size() && name_char(s_[j])) ++j;
      size_t k = j;
      while (k < s_.size() && (s_[k] == ' ' || s_[k] == '\t')) ++k;
      if (j > i && k < s_.size() && s_[k] == ':' && (k + 1 >= s_.size() || s_[k + 1] != ':') && s_[i] != '@') {
        labels_[{scopes_.back().id, std::string(s_.substr(i, j - i))}] = static_cast<int>(f_.code.size());
        i = k + 1;
        continue;
      }
      const size_t end = s_.find(';', i);
      if (end == std::string_view::npos) fail("a statement has no end in " + f_.name);
      const std::string_view statement = trim(s_.substr(i, end - i));
      parse_statement(statement);
      for (size_t c = i; c < end; ++c) line_ += s_[c] == '\n';
      i = end + 1;
    }
    for (size_t n = 0; n < f_.code.size(); ++n) {
      Instruction& in = f_.code[n];
      if (in.label.empty()) continue;
      int scope = pending_[n];
      for (;;) {
        if (auto found = labels_.find({scope, in.label}); found != labels_.end()) {
          in.target = found->second;
          break;
        }
        if (scope == 0) fail("label " + in.label + " is not defined in " + f_.name);
        scope = parents_[scope];
      }
    }
  }

 private:
  struct Scope {
    int id;
    std::map<std::string, std::string, std::less<>> names;
  };

  void declare(const std::string& name, int bits) {
    const std::string unique = scopes_.back().id ? name + "@" + std::to_string(scopes_.back().id) : name;
    scopes_.back().names[name] = unique;
    f_.registers[unique] = {bits};
  }

  std::string resolve(std::string_view name) {
    for (size_t i = scopes_.size(); i-- > 0;) {
      if (auto found = scopes_[i].names.find(name); found != scopes_[i].names.end()) return found->second;
    }
    // "%r<534>" declares %r1 .. %r533.
    size_t digits = name.size();
    while (digits > 0 && std::isdigit(static_cast<unsigned char>(name[digits - 1]))) --digits;
    if (digits < name.size()) {
      if (auto found = ranges_.find(name.substr(0, digits)); found != ranges_.end()) {
        std::string text(name);
        f_.registers[text] = {found->second};
        scopes_[0].names[text] = text;
        return text;
      }
    }
    return {};
  }

  void parse_statement(std::string_view s) {
    if (s.empty()) return;
    if (s[0] == '.') {
      if (s.rfind(".reg", 0) == 0) return parse_registers(s.substr(4));
      if (s.rfind(".local", 0) == 0) return f_.local.push_back(parse_variable(s.substr(6)));
      if (s.rfind(".shared", 0) == 0) return f_.shared.push_back(parse_variable(s.substr(7)));
      if (s.rfind(".pragma", 0) == 0 || s.rfind(".loc", 0) == 0) return;
      fail("directive " + std::string(s.substr(0, 60)));
    }
    Instruction in;
    in.line = line_;
    if (s[0] == '@') {
      size_t i = 1;
      if (s[i] == '!') in.guard_negated = true, ++i;
      size_t j = i;
      while (j < s.size() && name_char(s[j])) ++j;
      in.guard = resolve(s.substr(i, j - i));
      if (in.guard.empty()) fail("guard " + std::string(s.substr(0, 40)));
      s = trim(s.substr(j));
    }
    size_t j = 0;
    while (j < s.size() && !std::isspace(static_cast<unsigned char>(s[j]))) ++j;
    in.opcode = std::string(s.substr(0, j));
    size_t begin = 0;
    for (size_t i = 0; i <= in.opcode.size(); ++i) {
      if (i == in.opcode.size() || in.opcode[i] == '.') {
        in.parts.push_back(in.opcode.substr(begin, i - begin));
        begin = i + 1;
      }
    }
    const std::string_view rest = trim(s.substr(j));
    if (in.parts[0] == "bra") {
      in.label = std::string(rest);
      pending_[f_.code.size()] = scopes_.back().id;
    } else {
      for (std::string_view item : split(rest, ',')) in.operands.push_back(parse_operand(item));
    }
    f_.code.push_back(std::move(in));
  }

  void parse_registers(std::string_view s) {
    s = trim(s);
    size_t i = 0;
    while (i < s.size() && !std::isspace(static_cast<unsigned char>(s[i]))) ++i;
    const std::string_view type = s.substr(1, i - 1);
    const int bits = type == "pred" ? 1 : type_bytes(type) * 8;
    for (std::string_view name : split(s.substr(i), ',')) {
      if (const size_t angle = name.find('<'); angle != std::string_view::npos) {
        ranges_[std::string(name.substr(0, angle))] = bits;
      } else {
        declare(std::string(name), bits);
      }
    }
  }

  Operand parse_operand(std::string_view s) {
    Operand o;
    if (s.empty()) fail("an empty operand in " + f_.name);
    if (s == "_") return o;
    if (s[0] == '{') {
      o.kind = Operand::kVector;
      for (std::string_view item : split(s.substr(1, s.size() - 2), ',')) o.items.push_back(parse_operand(item));
      return o;
    }
    if (s[0] == '(') {
      o.kind = Operand::kVector;
      for (std::string_view item : split(s.substr(1, s.size() - 2), ',')) o.items.push_back(parse_operand(item));
      return o;
    }
    if (s[0] == '[') {
      o.kind = Operand::kAddress;
      const auto items = split(s.substr(1, s.size() - 2), ',');
      std::string_view base = items[0];
      size_t plus = base.find('+');
      if (plus == std::string_view::npos && base.size() > 1) plus = base.find('-', 1);
      if (plus != std::string_view::npos) {
        std::string_view number = trim(base.substr(plus));
        bool negative = false;
        while (!number.empty() && (number[0] == '+' || number[0] == '-')) {
          negative ^= number[0] == '-';
          number = trim(number.substr(1));
        }
        o.offset = static_cast<i64>(std::strtoull(std::string(number).c_str(), nullptr, 0));
        if (negative) o.offset = -o.offset;
        base = trim(base.substr(0, plus));
      }
      o.items.push_back(parse_operand(base));
      for (size_t i = 1; i < items.size(); ++i) o.items.push_back(parse_operand(items[i]));
      return o;
    }
    if (s[0] == '!') {
      o = parse_operand(trim(s.substr(1)));
      o.negated = true;
      return o;
    }
    if (s.find('|') != std::string_view::npos) {
      o.kind = Operand::kPair;
      for (std::string_view item : split(s, '|')) o.items.push_back(parse_operand(item));
      return o;
    }
    if (std::isdigit(static_cast<unsigned char>(s[0])) || s[0] == '-') {
      o.kind = Operand::kImmediate;
      if (s.size() > 2 && s[0] == '0' && (s[1] == 'f' || s[1] == 'F')) {
        o.float_bits = 32;
        o.value = std::strtoull(std::string(s.substr(2)).c_str(), nullptr, 16);
      } else if (s.size() > 2 && s[0] == '0' && (s[1] == 'd' || s[1] == 'D')) {
        o.float_bits = 64;
        o.value = std::strtoull(std::string(s.substr(2)).c_str(), nullptr, 16);
      } else if (s[0] == '-') {
        o.value = ~std::strtoull(std::string(s.substr(1)).c_str(), nullptr, 0) + 1;
      } else {
        o.value = std::strtoull(std::string(s).c_str(), nullptr, 0);
      }
      return o;
    }
    if (std::string name = resolve(s); !name.empty()) {
      o.kind = Operand::kRegister;
      o.name = std::move(name);
      return o;
    }
    o.kind = s[0] == '%' ? Operand::kSpecial : Operand::kSymbol;
    o.name = std::string(s);
    return o;
  }

  Function& f_;
  std::string_view s_;
  int line_ = 0, scope_count_ = 0;
  std::vector<Scope> scopes_;
  std::map<int, int> parents_;
  std::map<std::string, int, std::less<>> ranges_;
  std::map<std::pair<int, std::string>, int> labels_;
  std::map<size_t, int> pending_;
};

}  // namespace

std::unique_ptr<Module> parse_module(std::string raw) {
  auto module = std::make_unique<Module>();
  module->text = without_comments(raw);
  const std::string& t = module->text;
  size_t i = 0;
  while (i < t.size()) {
    if (std::isspace(static_cast<unsigned char>(t[i])) || t[i] == ';') {
      ++i;
      continue;
    }
    if (t.compare(i, 8, ".version") == 0 || t.compare(i, 7, ".target") == 0 || t.compare(i, 13, ".address_size") == 0 ||
        t.compare(i, 5, ".file") == 0) {
      i = t.find('\n', i);
      continue;
    }
    // A declaration up to ';' or a function up to its closing brace.
    size_t end = i;
    int depth = 0;
    bool function = false;
    const size_t stop = t.find_first_of("{;", i);
    const std::string_view head(t.data() + i, stop - i);
    function = head.find(".entry") != std::string_view::npos || head.find(".func") != std::string_view::npos;
    if (!function) {
      end = t.find(';', i);
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
    end = stop;
    do {
      if (t[end] == '{') ++depth;
      if (t[end] == '}') --depth;
      ++end;
    } while (depth > 0 && end < t.size());
    const bool entry = head.find(".entry") != std::string_view::npos;
    size_t at = head.find(entry ? ".entry" : ".func") + (entry ? 6 : 5);
    while (at < head.size() && std::isspace(static_cast<unsigned char>(head[at]))) ++at;
    if (!entry && head[at] == '(') {
      at = head.find(')', at) + 1;
      while (at < head.size() && std::isspace(static_cast<unsigned char>(head[at]))) ++at;
    }
    size_t name_end = at;
    while (name_end < head.size() && name_char(head[name_end])) ++name_end;
    std::string name(head.substr(at, name_end - at));
    if (entry) module->entries.push_back(name);
    module->bodies[name] = {i, end};
    i = end;
  }
  return module;
}

std::unique_ptr<Function> parse_function(const Module& module, const std::string& name) {
  const auto found = module.bodies.find(name);
  if (found == module.bodies.end()) fail("no function " + name);
  const auto [begin, end] = found->second;
  const std::string_view text(module.text.data() + begin, end - begin);
  auto f = std::make_unique<Function>();
  f->name = name;
  const size_t brace = text.find('{');
  const std::string_view head = text.substr(0, brace);
  f->entry = head.find(".entry") != std::string_view::npos;
  const size_t open = head.find('(', head.find(name)), close = head.rfind(')');
  if (open != std::string_view::npos && close != std::string_view::npos) {
    for (std::string_view item : split(head.substr(open + 1, close - open - 1), ',')) {
      item = trim(item);
      if (item.rfind(".param", 0) != 0) fail("parameter " + std::string(item.substr(0, 80)));
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
  BodyParser(*f, text.substr(brace + 1, text.size() - brace - 2)).run();
  return f;
}

}  // namespace emu
