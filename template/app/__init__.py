"""The AI service: routes → auth → guard → provider → guard → database."""
