"""Nets as plain C for microcontrollers, generated from int8 TFLite files. Only this folder imports bakenn."""
