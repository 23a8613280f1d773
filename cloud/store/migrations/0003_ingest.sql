-- Sum of two 64-bit numbers modulo 2^64, as signed bigint: digests add up whatever their size.
create function wrapping_add(a bigint, b bigint) returns bigint language sql immutable parallel safe as $$
    select case
        when s >  9223372036854775807::numeric then (s - 18446744073709551616::numeric)::bigint
        when s < -9223372036854775808::numeric then (s + 18446744073709551616::numeric)::bigint
        else s::bigint end
    from (select a::numeric + b::numeric as s) t
$$;
