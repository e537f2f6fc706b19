#include "models/tokenizer/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/base/error.h"

namespace trimtab {
namespace {

using testing::HasSubstr;

constexpr char kSmolLm2[] =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou "
    "are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + "
    "message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|im_start|>assistant\n' }}{% endif %}";

std::shared_ptr<const ChatTemplate> Create(std::string source) {
  auto created = ChatTemplate::Create(std::move(source), "<s>", "</s>");
  EXPECT_TRUE(created.ok()) << created.status();
  return *created;
}

absl::Status CreateError(std::string source) { return ChatTemplate::Create(std::move(source), "", "").status(); }

absl::Status RenderError(std::string source) {
  return Create(std::move(source))->Render({{"user", "hi"}}, true).status();
}

TEST(ChatTemplateTest, RendersWithTheDefaultSystemMessage) {
  EXPECT_EQ(*Create(kSmolLm2)->Render({{"user", "Hi"}, {"assistant", "Yo"}, {"user", "Bye"}}, true),
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
            "<|im_start|>assistant\n");
  EXPECT_EQ(*Create(kSmolLm2)->Render({{"system", "S"}}, false), "<|im_start|>system\nS<|im_end|>\n");
}

TEST(ChatTemplateTest, KnowsBosEosAndAbsentTools) {
  EXPECT_EQ(*Create("{{ bos_token }}{{ eos_token }}{% if tools is not none %}T{% endif %}{{ messages | length }}")
                 ->Render({{"user", "a"}}, false),
            "<s></s>1");
}

TEST(ChatTemplateTest, PartsTellWhoseTextItIs) {
  const auto parts = Create("A{{ messages[0]['content'] | trim }}B{{ messages[1].content }}")
                         ->RenderParts({{"user", " u "}, {"assistant", "v"}}, false, [](size_t i) { return i == 0; });
  ASSERT_TRUE(parts.ok());
  ASSERT_EQ(parts->size(), 3u);
  EXPECT_EQ((*parts)[1].text, "u");
  EXPECT_TRUE((*parts)[1].is_marked);
  EXPECT_EQ((*parts)[2].text, "Bv");
  EXPECT_FALSE((*parts)[2].is_marked);
}

TEST(ChatTemplateTest, WhatIsMadeOfAMarkedTextIsMarked) {
  for (const char* expression :
       {"messages[0].content.split('-')[0]", "messages[0].content.split('-')[1]",
        "messages[0].content.rsplit('-', 1)[1]", "messages[0].content | replace('-', '')", "messages[0].content[1:]",
        "messages[0].content[1]", "messages[0].content.split('-') | join('')", "messages[0].content | upper",
        "messages[0].content | trim", "('T' + messages[0].content) | replace('-', '')",
        "'{}'.format(messages[0].content)", "messages[0].content | indent(2)"}) {
    const auto parts =
        Create("{{ " + std::string(expression) + " }}")->RenderParts({{"user", "ab-cd"}}, false, [](size_t) {
          return true;
        });
    ASSERT_TRUE(parts.ok()) << expression << parts.status();
    ASSERT_EQ(parts->size(), 1u) << expression;
    EXPECT_TRUE(parts->front().is_marked) << expression;
  }
}

TEST(ChatTemplateTest, BrokenUtf8InMessagesIsReplaced) {
  EXPECT_EQ(*Create("{{ messages[0].content }}")->Render({{"user", "a\xFF"}}, false), "a\xEF\xBF\xBD");
}

TEST(ChatTemplateTest, RefusedConversations) {
  const auto created = Create(kSmolLm2);
  for (const auto& messages : {std::vector<ChatMessage>{}, {{"admin", "x"}}, {{"user<|im_end|>", "x"}}}) {
    const absl::Status status = created->Render(messages, true).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(GetErrorDetail(status).reason, kFieldInvalid);
  }
  const absl::Status raised = RenderError("{{ raise_exception('roles must alternate') }}");
  EXPECT_EQ(GetErrorDetail(raised).reason, kFieldInvalid);
  EXPECT_THAT(std::string(raised.message()), HasSubstr("roles must alternate"));
}

TEST(ChatTemplateTest, TemplatesThatDoNotParse) {
  for (const char* source : {"{% if %}", "{{ ", "{% for x in %}", "{% frob %}", "\xFF"}) {
    const absl::Status status = CreateError(source);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << source;
    EXPECT_EQ(GetErrorDetail(status).reason, kModelFileInvalid) << source;
  }
}

TEST(ChatTemplateTest, HostileTemplatesAreRefused) {
  const auto repeat = [](const std::string& text, int times) {
    std::string out;
    for (; times > 0; --times) out += text;
    return out;
  };
  const std::vector<std::string> sources = {std::string(300 * 1024, 'x'),
                                            "{{ " + repeat("(", 20000) + "1" + repeat(")", 20000) + " }}",
                                            "{{ " + repeat("not ", 20000) + "1 }}",
                                            "{{ 1" + repeat(" + 1", 20000) + " }}",
                                            repeat("{% if 1 %}", 10000) + repeat("{% endif %}", 10000),
                                            repeat("{% if 1 %}{% endgeneration %}", 5000) + repeat("{% endif %}", 5000),
                                            "{% if 0 %}" + repeat("{% elif 0 %}", 10000) + "{% endif %}",
                                            repeat("{% set x | f(a=1) %}", 5000) + repeat("{% endset %}", 5000)};
  for (const std::string& source : sources) {
    EXPECT_EQ(GetErrorDetail(CreateError(source)).reason, kModelFileInvalid) << source.substr(0, 40);
  }
}

TEST(ChatTemplateTest, HostileRenderingsEnd) {
  for (const char* source :
       {"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for i in range(90000) %}{% for j in range(90000) %}{{ 1 }}{% endfor %}{% endfor %}",
        "{% for i in range(10000000000) %}{% endfor %}", "{{ 'x' * 100000000000 }}",
        "{{ 'x' | indent(100000000000, true) }}",
        "{% set ns = namespace(x='0123456789') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}"}) {
    EXPECT_EQ(GetErrorDetail(RenderError(source)).reason, kFieldInvalid) << source;
  }
  // The limits hold for one rendering, not for all of a thread.
  EXPECT_TRUE(Create(kSmolLm2)->Render({{"user", "x"}}, true).ok());
}

}  // namespace
}  // namespace trimtab
