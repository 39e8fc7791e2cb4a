"""What `guardrail demo` shows: a stand-in chatbot that is sometimes wrong, and a chat page that shows what the guard does about it."""
