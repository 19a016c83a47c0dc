"""gateway/providers/responses"""
